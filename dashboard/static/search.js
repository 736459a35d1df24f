// The search box: completes the word at the cursor by what the server knows. It works without.
"use strict";
(() => {
  const box = document.querySelector("input[data-words]");
  if (!box) return;
  const list = document.createElement("ul");
  Object.assign(list, { id: "q-words", className: "words", hidden: true });
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Words");
  box.after(list);
  for (const [name, value] of [["role", "combobox"], ["aria-expanded", "false"], ["aria-controls", list.id],
    ["aria-autocomplete", "list"]]) box.setAttribute(name, value);
  let known = null, loading = null, chosen = -1;

  const load = () => loading ??= fetch(box.dataset.words)
    .then(async (answer) => { known = answer.ok && !answer.redirected ? await answer.json() : null; })
    .catch(() => { loading = null; });
  // The word around the cursor: where it begins and ends, and what of it is in front of the cursor.
  const current = () => {
    const at = box.selectionStart, text = box.value;
    const start = text.slice(0, at).search(/(?:[^\s"]|"[^"]*"?)*$/);
    const rest = text.slice(at).match(/^[^\s"]*/)[0];
    return { start, end: at + rest.length, typed: text.slice(start, at) };
  };
  const offers = (typed) => {
    const [, field, value] = typed.match(/^([a-z]+):(.*)$/) || [];
    const has = (word, part) => word.toLowerCase().includes(part.toLowerCase());
    if (field) return (known.words[field] || []).filter((word) => has(word, value)).map((word) => `${field}:${word}`);
    const fields = known.fields.flatMap((each) => each === "args." ? known.words.args.map((arg) => `args.${arg}`) : [each]);
    const found = fields.filter((each) => each.startsWith(typed)).map((each) => `${each}:`);
    return typed.length > 1 ? [...found, ...known.words.name.filter((word) => has(word, typed)).map((word) => `name:${word}`)] : found;
  };
  const close = () => { list.hidden = true; chosen = -1; box.setAttribute("aria-expanded", "false"); box.removeAttribute("aria-activedescendant"); };
  const mark = (next) => {
    const items = [...list.children];
    chosen = items.length ? (next + items.length) % items.length : -1;
    items.forEach((item, place) => item.setAttribute("aria-selected", place === chosen));
    if (chosen < 0) return;
    items[chosen].scrollIntoView({ block: "nearest" });
    box.setAttribute("aria-activedescendant", items[chosen].id);
  };
  const show = async () => {
    await load();
    const { typed } = current();
    const found = known ? offers(typed).filter((each) => each !== typed).slice(0, 12) : [];
    list.replaceChildren(...found.map((word, place) => {
      const item = document.createElement("li");
      item.id = `q-word-${place}`;
      item.setAttribute("role", "option");
      item.textContent = word;
      item.addEventListener("mousedown", (event) => { event.preventDefault(); take(word); });
      return item;
    }));
    chosen = -1;
    box.removeAttribute("aria-activedescendant");
    list.hidden = !found.length || document.activeElement !== box;
    box.setAttribute("aria-expanded", !list.hidden);
  };
  const take = (word) => {
    const { start, end } = current();
    const space = word.endsWith(":") ? "" : " ";
    box.setRangeText(word + space, start, end, "end");
    close();
    show();
  };
  box.addEventListener("input", show);
  box.addEventListener("focus", show);
  box.addEventListener("blur", close);
  box.addEventListener("keydown", (event) => {
    if (list.hidden) { if (event.key === "ArrowDown") { event.preventDefault(); show(); } return; }
    if (event.key === "ArrowDown") { event.preventDefault(); mark(chosen + 1); }
    else if (event.key === "ArrowUp") { event.preventDefault(); mark(chosen < 0 ? -1 : chosen - 1); }
    else if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); close(); }
    else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) { event.preventDefault(); take(list.children[chosen].textContent); }
  });
})();
