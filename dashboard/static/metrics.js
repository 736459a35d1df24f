// The charts of the metrics page: four of uPlot with one cursor, fetched again when the page's regions are fresh.
"use strict";
(() => {
  const charts = document.getElementById("charts"), fault = document.getElementById("chart-fault");
  const figures = [...charts.querySelectorAll("[data-chart]")];
  const HOUR = 3600, DAY = 86400, HEIGHT = 180;
  let data = null, plots = [], asking = false;

  const count = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
  const whole = new Intl.NumberFormat();
  const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  const hour = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  const round = (value) => String(Number(value.toPrecision(3)));
  const span = (seconds) =>
    seconds === 0 ? "0" : seconds < 0.001 ? `${round(seconds * 1e6)} µs` : seconds < 1 ? `${round(seconds * 1000)} ms`
      : seconds < 120 ? `${round(seconds)} s` : seconds < 7200 ? `${round(seconds / 60)} min` : seconds < 2 * DAY ? `${round(seconds / 3600)} h`
        : `${round(seconds / DAY)} d`;
  const tick = (at, step) => {
    const time = new Date(at * 1000);
    return step >= DAY || (time.getHours() === 0 && time.getMinutes() === 0) ? day.format(time) : clock.format(time);
  };

  // A canvas knows no variables: what an element's colour becomes is asked of the page.
  const colours = () => {
    const probe = document.createElement("i");
    charts.append(probe);
    const found = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
    const all = Object.fromEntries(["finished", "failed", "started", "queued", "line", "soft", "panel"].map((name) => [name, found(name)]));
    probe.remove();
    return all;
  };

  const told = (figure, index) => {
    for (const line of figure.querySelectorAll("[data-line]")) {
      const value = index == null ? null : data[line.dataset.line][index];
      const text = value == null ? "" : figure.dataset.unit === "span" ? span(value) : whole.format(value);
      line.querySelector("[data-value]").textContent = text;
    }
    figure.querySelector("[data-at]").textContent = index == null ? "" : hour.format(data.at[index] * 1000);
  };

  const options = (figure, colour) => {
    const is_span = figure.dataset.unit === "span", lines = [...figure.querySelectorAll("[data-line]")];
    const of = (line) => colour[line.querySelector(".s").className.match(/s-(\w+)/)[1]];
    const axis = { stroke: colour.soft, font: "11px system-ui, sans-serif", ticks: { show: false } };
    return {
      width: figure.querySelector(".plot").clientWidth || 300,
      height: HEIGHT,
      padding: [8, 18, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "metrics" }, drag: { x: false, y: false }, y: false, points: { size: 7 } },
      scales: { x: { range: (_, first, last) => [first, last + HOUR] }, y: { range: (_, __, most) => [0, most > 0 ? most * 1.08 : 1] } },
      axes: [
        { ...axis, grid: { show: false }, size: 26, space: 64, values: (_, splits, __, ___, step) => splits.map((at) => tick(at, step)) },
        { ...axis, size: 58, space: 34, grid: { stroke: colour.line, width: 1 }, incrs: is_span ? span_steps : whole_steps,
          values: (_, splits) => splits.map((value) => (is_span ? span(value) : count.format(value))) },
      ],
      series: [{}, ...lines.map((line) => ({
        stroke: of(line),
        fill: is_span ? undefined : of(line),
        width: is_span ? 1.75 : 0,
        paths: is_span ? undefined : uPlot.paths.bars({ size: [0.75, 40], align: 1 }),
        points: is_span ? { size: 4, fill: of(line) } : { show: false },
      }))],
      hooks: { setCursor: [(plot) => told(figure, plot.cursor.left < 0 ? null : plot.cursor.idx)] },
    };
  };
  const decades = (first, last) =>
    [...Array(last - first).keys()].flatMap((power) => [1, 2, 5].map((step) => Number((step * 10 ** (first + power)).toPrecision(1))));
  const span_steps = [...decades(-6, 1), 10, 20, 30, 60, 120, 300, 600, 1200, 1800, HOUR, 2 * HOUR, 6 * HOUR, 12 * HOUR, ...decades(0, 4).map((days) => days * DAY)];
  const whole_steps = decades(0, 13);
  const columns = (figure) => [data.at, ...[...figure.querySelectorAll("[data-line]")].map((line) => data[line.dataset.line])];

  const draw = () => {
    plots.forEach((plot) => plot.destroy());
    charts.hidden = false;
    const colour = colours();
    plots = figures.map((figure) => new uPlot(options(figure, colour), columns(figure), figure.querySelector(".plot")));
  };

  const look = async () => {
    if (asking) return;
    asking = true;
    try {
      const answer = await fetch(charts.dataset.from, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(15000) });
      if (!answer.ok || answer.redirected) throw new Error(answer.status);
      data = await answer.json();
      fault.hidden = true;
      if (plots.length) plots.forEach((plot, number) => plot.setData(columns(figures[number]))); else draw();
    } catch {
      fault.textContent = "The charts couldn't be loaded. They are retried within a minute.";
      fault.hidden = false;
    } finally {
      asking = false;
    }
  };

  for (const figure of figures) {
    const at = document.createElement("small");
    at.dataset.at = "";
    figure.querySelector("figcaption b").after(at);
    new ResizeObserver(() => {
      const plot = plots[figures.indexOf(figure)], width = figure.querySelector(".plot").clientWidth;
      if (plot && width && width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }).observe(figure);
  }
  const again = () => data && draw();
  new MutationObserver(again).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("packmule:fresh", look);
  look();
})();
