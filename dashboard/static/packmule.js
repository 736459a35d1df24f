// What makes a page live: times that tick, regions that are fetched again when the server says that they are stale,
// and keys. Every page can be read, and every button works, without it.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const said = $("#said"), badge = $("#live");
  const POLL = 5000, EVERY = 2000, LONGEST_PAUSE = 30000;

  // Times: local and relative, the exact one on hover.
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
  const units = [["s", 1, 120], ["min", 60, 7200], ["h", 3600, 172800], ["d", 86400, Infinity]];
  let skew = 0; // seconds by which the server's clock is ahead of this one
  const span = (seconds, round = Math.floor) => {
    const [unit, size] = units.find(([, , bound]) => seconds < bound);
    return `${round(seconds / size)} ${unit}`;
  };
  const tell = (element) => {
    const at = Date.parse(element.dateTime), form = element.dataset.form;
    if (isNaN(at)) return;
    const past = (Date.now() - at) / 1000 + skew;
    const text = form === "exact" ? exact.format(at)
      : form === "clock" ? clock.format(at)
      : form === "since" ? span(Math.max(0, past))
      : Math.abs(past) < 1 ? "now"
      : past > 0 ? `${span(past)} ago` : `in ${span(-past, Math.round)}`;
    if (element.textContent !== text) element.textContent = text;
    const title = `${exact.format(at)} (${element.dateTime})`;
    if (element.title !== title) element.title = title;
  };
  const tick = (root = document) => all("time[datetime]", root).forEach(tell);

  const say = (text) => {
    const line = document.createElement("p");
    line.className = "sr";
    line.textContent = text;
    all("p.sr", said).forEach((each) => each.remove());
    said.append(line);
  };

  // Regions: the server names topics that changed; those regions that depend on one are fetched and morphed.
  const regions = () => all("[data-region]");
  const depends = (region, topics) =>
    topics.includes("*") || (region.dataset.on || "").split(" ").some((topic) => topics.includes(topic));
  const stale = new Set();
  let paused = false, fetching = false, fresh = Date.now(), source = null, state = "", wait = 1000, timer = 0;
  let position = document.body.dataset.position || ""; // up to which the page knows what is stale
  let refused = !document.body.dataset.live;

  const is_busy = () =>
    paused || document.hidden || $("dialog[open]") || $("details.menu[open]") ||
    $("#ticked") && ticks().some((each) => each.checked) ||
    $("[data-region] form:focus-within :is(input, textarea, select):focus");
  const is_selected = (region) => {
    const selection = getSelection();
    return !selection.isCollapsed && selection.rangeCount && region.contains(selection.anchorNode);
  };

  const keep = {
    beforeNodeMorphed(old, fresh) {
      if (old.nodeType !== 1) return true;
      if (old.dataset.keep !== undefined) return false;
      // Half-typed values, ticked boxes and opened details are the reader's.
      if (old.matches("input, textarea, select") && old.form && touched.has(old.form)) return false;
      if (old.tagName === "DETAILS") fresh.open = old.open;
      if (old.classList.contains("is-here")) fresh.classList.add("is-here");
      if (old.tagName === "TIME" && old.dateTime === fresh.dateTime && old.dataset.form === fresh.dataset.form) return false;
      return true;
    },
    beforeNodeRemoved: (node) => node.nodeType !== 1 || !node.contains(document.activeElement) || document.activeElement === document.body,
  };
  const touched = new WeakSet();
  addEventListener("input", ({ target: { form } }) => form?.matches("#ticked") === false && touched.add(form));

  const morph = (html) => {
    const arrived = new DOMParser().parseFromString(html, "text/html");
    for (const next of all("[data-region]", arrived)) {
      const old = regions().find((each) => each.dataset.region === next.dataset.region);
      if (!old) continue;
      if (is_selected(old)) { stale.add(old.dataset.region); continue; }
      const scrolls = all(".scroll, pre", old).map((each) => [each, each.scrollLeft, each.scrollTop]);
      Idiomorph.morph(old, next, { morphStyle: "outerHTML", ignoreActiveValue: true, callbacks: keep });
      scrolls.forEach(([each, left, top]) => { each.scrollLeft = left; each.scrollTop = top; });
    }
    tick();
    count();
    dispatchEvent(new Event("packmule:fresh"));
  };

  const refresh = async () => {
    if (fetching || !stale.size || is_busy()) return;
    fetching = true;
    const names = [...stale];
    stale.clear();
    const address = new URL(location.href);
    address.hash = "";
    names.forEach((name) => address.searchParams.append("region", name));
    try {
      const answer = await fetch(address, { headers: { Accept: "text/html", "Packmule-Position": position }, signal: AbortSignal.timeout(15000) });
      if (answer.redirected) return location.reload(); // the session has ended
      if (!answer.ok) throw new Error(answer.status);
      const html = await answer.text();
      wait = 1000;
      // Whoever has opened a menu or a question meanwhile keeps the page that it is about.
      if (is_busy()) return names.forEach((name) => stale.add(name));
      morph(html);
      fresh = Date.now();
      show(source && source.readyState === 1 ? "live" : "polling");
    } catch {
      names.forEach((name) => stale.add(name));
      show("stale");
      wait = Math.min(LONGEST_PAUSE, wait * 2);
      setTimeout(refresh, wait);
    } finally {
      fetching = false;
      if (stale.size && wait === 1000) setTimeout(refresh, 250);
    }
  };

  const mark = (topics) => {
    regions().filter((region) => depends(region, topics)).forEach((region) => stale.add(region.dataset.region));
    refresh();
  };

  // What emits no events, such as the lines of a log, is fetched now and then.
  setInterval(() => {
    const due = regions().filter((region) => region.dataset.every !== undefined);
    due.forEach((region) => stale.add(region.dataset.region));
    if (due.length && !paused) refresh();
  }, EVERY);

  const show = (next) => {
    if (paused) next = "paused";
    if (!badge || (state === next && next === "live")) return;
    const as_of = `as of ${clock.format(fresh)}`;
    const text = { live: "live", polling: "every 5 s", paused: `paused, ${as_of}`, stale: `${as_of}, reconnecting` }[next];
    badge.hidden = false;
    badge.classList.toggle("is-stale", next === "stale");
    badge.classList.toggle("is-paused", next === "paused");
    badge.lastElementChild.textContent = text;
    badge.title = text;
    if (state && state !== next && (next === "stale" || state === "stale" || state === "paused" || next === "paused"))
      say({ live: "The page is live again.", polling: "The page is up to date again.", paused: "The page is paused.", stale: `The page is ${text}.` }[next]);
    state = next;
  };

  const connect = () => {
    clearTimeout(timer);
    if (source || paused || document.hidden || !document.body.dataset.live || !regions().length) return;
    const topics = new Set(regions().flatMap((region) => (region.dataset.on || "").split(" ")).filter(Boolean));
    const address = new URL(document.body.dataset.live, location.href);
    address.searchParams.set("on", [...topics].join(" "));
    address.searchParams.set("since", position);
    source = new EventSource(address);
    const on = (name, act) => source.addEventListener(name, (event) => {
      position = event.lastEventId || position;
      act(event);
    });
    on("hello", (event) => {
      skew = Number(event.data) - Date.now() / 1000 || 0;
      refused = false;
      revive();
    });
    on("stale", (event) => mark(event.data.split(" ")));
    on("away", () => show("stale"));
    on("back", revive); // and then "stale" says what changed
    source.onerror = () => {
      show("stale");
      if (source && source.readyState === 2) { close(); refused = true; timer = setTimeout(poll, POLL); }
    };
  };
  const revive = () => { wait = 1000; show("live"); refresh(); };
  const close = () => { source && source.close(); source = null; };
  const poll = () => { // streams are refused here: ask now and then, and try again
    clearTimeout(timer);
    if (paused || document.hidden) return;
    mark(["*"]);
    timer = setTimeout(() => (Math.random() < 0.2 ? connect() : poll()), POLL);
  };
  const follow = () => (refused ? poll() : connect());

  const pause = $("#pause");
  const set_paused = (value) => {
    paused = value;
    pause.setAttribute("aria-pressed", paused);
    pause.textContent = paused ? "Resume" : "Pause";
    if (paused) { close(); show("paused"); } else { state = "paused"; follow(); refresh(); }
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) setTimeout(() => document.hidden && close(), 5000);
    else { follow(); refresh(); }
  });
  addEventListener("toggle", (event) => event.target.matches?.("details.menu") && !event.target.open && refresh(), true);
  document.addEventListener("selectionchange", () => stale.size && getSelection().isCollapsed && refresh());
  addEventListener("focusout", () => stale.size && setTimeout(refresh, 100));

  // Acts ask before they destroy.
  let asked = null;
  $("#confirm")?.addEventListener("close", ({ target: dialog }) => {
    if (dialog.open) return; // it was asked again before this event of its last answer came
    dialog.returnValue === "yes" ? asked() : refresh();
  });
  const confirm_in = (text, then) => {
    const dialog = $("#confirm");
    $("#confirm-text").textContent = text;
    dialog.returnValue = "no";
    asked = then;
    dialog.showModal();
  };
  addEventListener("submit", (event) => {
    const form = event.target, text = event.submitter?.dataset.confirm || form.dataset.confirm;
    if (text && !form.dataset.confirmed) {
      event.preventDefault();
      const { submitter } = event;
      confirm_in(text, () => {
        form.dataset.confirmed = "yes";
        form.requestSubmit(submitter);
        delete form.dataset.confirmed;
      });
    }
  });

  // Ticking one box ticks all: <input type=checkbox data-ticks="[name=id]">.
  addEventListener("change", (event) => {
    const box = event.target;
    if (box.dataset.ticks) all(box.dataset.ticks).forEach((each) => { each.checked = box.checked; });
    if (box.dataset.ticks || box.matches("[form=ticked]")) { count(); refresh(); }
  });

  // Ticked rows: a list with some stands still, so that what is ticked stays what is seen. Shift ticks a range.
  const ticks = () => all("[form=ticked]");
  let last = null;
  const count = () => {
    const form = $("#ticked"), list = ticks(), number = list.filter((each) => each.checked).length;
    if (!form) return;
    form.hidden = !number;
    $("span", form).textContent = `${number} selected; the list stands still meanwhile.`;
    all("[data-ticks]").forEach((each) => {
      each.hidden = false;
      each.checked = number === list.length;
      each.indeterminate = number > 0 && !each.checked;
    });
  };
  addEventListener("click", ({ target, shiftKey }) => {
    const list = ticks(), ends = [list.indexOf(last), list.indexOf(target)].sort((a, b) => a - b);
    if (!list.includes(target)) return;
    if (shiftKey && ends[0] >= 0) list.slice(ends[0], ends[1] + 1).forEach((each) => { each.checked = target.checked; });
    last = target;
  });

  // The theme: the system's, light or dark, kept in this browser.
  const themes = ["", "light", "dark"], names = { "": "Auto", light: "Light", dark: "Dark" };
  const theme = $("#theme"), root = document.documentElement;
  const name_theme = () => {
    theme.textContent = names[root.dataset.theme || ""];
    theme.setAttribute("aria-label", `Theme: ${theme.textContent}`);
  };
  const turn_theme = () => {
    root.dataset.theme = themes[(themes.indexOf(root.dataset.theme || "") + 1) % 3];
    try { localStorage.packmuleTheme = root.dataset.theme; } catch { /* it lasts for this page */ }
    name_theme();
  };

  // Keys.
  const rows = () => all("main tbody tr, main .card").filter((each) => !each.hidden && each.offsetParent);
  const move = (step) => {
    const list = rows(), at = list.findIndex((each) => each.classList.contains("is-here"));
    const next = list[Math.max(0, Math.min(list.length - 1, at + step))];
    if (!next) return;
    all(".is-here").forEach((each) => each.classList.remove("is-here"));
    next.classList.add("is-here");
    next.scrollIntoView({ block: "nearest" });
    $("a, button", next)?.focus();
  };
  const help = () => {
    const dialog = $("#help"), list = [
      ["/", "search or filter"], ["j, k", "next, previous row"], ["p", "pause or resume"], ["t", "theme"], ["?", "these keys"],
      ...all(".side [data-key]").map((each) => [`g ${each.dataset.key}`, each.textContent]),
    ];
    dialog.replaceChildren();
    const title = document.createElement("h2"), table = document.createElement("dl"), form = document.createElement("form");
    title.id = "help-title";
    title.textContent = "Keys";
    for (const [key, text] of list) {
      const dt = document.createElement("dt"), dd = document.createElement("dd"), kbd = document.createElement("kbd");
      kbd.textContent = key;
      dt.append(kbd);
      dd.textContent = text;
      table.append(dt, dd);
    }
    form.method = "dialog";
    form.className = "buttons";
    const done = document.createElement("button");
    done.textContent = "Close";
    form.append(done);
    dialog.append(title, table, form);
    dialog.showModal();
  };
  let went = 0;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    if (event.key === "Escape") {
      all("details.menu[open]").forEach((each) => { each.open = false; $("summary", each).focus(); });
      if (event.target.matches("input")) event.target.blur();
      return;
    }
    if (event.target.matches("input, textarea, select, [contenteditable]")) return;
    if (Date.now() - went < 1500) {
      went = 0;
      const link = $(`.side [data-key="${CSS.escape(event.key)}"]`);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    const keys = {
      "/": () => ($("main input[type=search]") || $(".search input"))?.focus(),
      "?": help, g: () => { went = Date.now(); }, j: () => move(1), k: () => move(-1),
      p: () => !pause.hidden && pause.click(), t: turn_theme,
    };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  addEventListener("click", (event) => {
    all("details.menu[open]").forEach((each) => { if (!each.contains(event.target)) each.open = false; });
  });

  // Begin.
  theme.hidden = $("#keys").hidden = false;
  theme.addEventListener("click", turn_theme);
  $("#keys").addEventListener("click", help);
  name_theme();
  tick();
  count();
  setInterval(tick, 1000);
  if (regions().length) {
    pause.hidden = false;
    pause.addEventListener("click", () => set_paused(!paused));
    follow();
  }
  addEventListener("pageshow", (event) => event.persisted && (close(), follow()));
})();
