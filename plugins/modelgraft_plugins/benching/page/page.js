"use strict";
const all = (what, where = document) => [...where.querySelectorAll(what)];
const picked = document.getElementById("picked"), cells = document.getElementById("cells");
const row = link => document.getElementById(link.getAttribute("href").slice(1));
const make = (tag, text, parent) => { const made = document.createElement(tag); made.textContent = text; parent.append(made); return made; };

// -- what a row of the table says of its cell
const heads = cells ? all("thead th", cells) : [];
const text = cell => cell.textContent.trim();
const figures = line => [...line.cells].slice(0, -1).map((cell, index) => [text(heads[index]), text(cell)]).filter(pair => pair[1] !== "–");
const called = line => [...line.cells].filter((_, index) => heads[index].className === "axis").map(text).join(" · ") || text(line.cells[0]);
const command = line => cells.dataset.lead + line.querySelector("code").textContent + cells.dataset.tail;

// -- a cell: what is known of it, and its command to take along
function close() { picked.hidden = true; for (const one of all(".on")) one.classList.remove("on"); }
function pick(link) {
  const line = row(link);
  close();
  for (const one of [line, ...all(`a[href="#${line.id}"]`)]) one.classList.add("on");
  picked.replaceChildren();
  make("h2", called(line), picked);
  const code = make("code", command(line), picked);
  const copy = make("button", "copy the command", picked), list = make("dl", "", picked);
  copy.onclick = () => {
    const done = () => { copy.textContent = "copied"; };
    getSelection().selectAllChildren(code);
    navigator.clipboard ? navigator.clipboard.writeText(code.textContent).then(done, done) : document.execCommand("copy") && done();
  };
  const go = make("button", "row", picked), shut = make("button", "close", picked);
  go.onclick = () => line.scrollIntoView({ block: "center" });
  shut.onclick = () => { close(); link.focus(); };
  for (const one of [copy, go, shut]) { one.className = "plain"; list.before(one); }
  for (const [head, figure] of figures(line)) {
    const pair = make("div", "", list);
    make("dt", head, pair);
    make("dd", figure, pair);
  }
  picked.hidden = false;
}
const links = all("a[href^='#c']").filter(link => /^#c\d+$/.test(link.getAttribute("href")) && row(link));
for (const link of links) {
  link.addEventListener("click", event => { event.preventDefault(); pick(link); });
  link.addEventListener("focus", () => { if (link.matches(":focus-visible")) pick(link); });
  if (link.getAttribute("title") || link.querySelector("title")) continue;
  const line = row(link), told = [called(line), ...figures(line).map(pair => pair.join(" ")), command(line)].join("\n");
  if (link.closest(".area")) link.append(Object.assign(document.createElementNS("http://www.w3.org/2000/svg", "title"), { textContent: told }));
  else link.title = told;
}
addEventListener("keydown", event => { if (event.key === "Escape") close(); });

// -- one stop for a keyboard in each chart, and arrows within it
for (const chart of all(".area, .strips")) {
  const stops = all("a", chart);
  stops.forEach((stop, index) => {
    stop.setAttribute("tabindex", index ? -1 : 0);
    stop.addEventListener("keydown", event => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -index, End: stops.length - 1 - index }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const next = stops[Math.min(stops.length - 1, Math.max(0, index + step))];
      stop.setAttribute("tabindex", -1);
      next.setAttribute("tabindex", 0);
      next.focus();
    });
  });
}

// -- sorting: by the number of a figure, or by its text; what is not there comes last
const units = { "µs": 1e-6, ms: 1e-3, KiB: 1024, MiB: 1 << 20, GiB: 1 << 30, k: 1e3, M: 1e6 };
function number(words, kind) {
  const found = kind === "axis" || kind === "text" ? null : words.match(/^([-+]?[\d.,]+(?:e[-+]\d+)?) ?([^\s[(]*)/);
  return found ? found[1].replaceAll(",", "") * (found[2] === "B" && kind === "count" ? 1e9 : units[found[2]] || 1) : words;
}
heads.forEach((head, index) => {
  const button = make("button", head.textContent, head);
  head.firstChild.remove();
  button.onclick = () => {
    const down = head.getAttribute("aria-sort") === "ascending", body = cells.tBodies[0];
    const key = line => number(text(line.cells[index]), head.className);
    const rank = value => value === "–" ? 2 : typeof value === "string" ? 1 : 0;
    const lines = [...body.rows].sort((one, other) => {
      const a = key(one), b = key(other);
      if (rank(a) !== rank(b)) return rank(a) - rank(b);
      return (rank(a) ? String(a).localeCompare(b, "en", { numeric: true }) : a - b) * (down ? -1 : 1);
    });
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...lines);
  };
});

// -- marks by another axis: every row knows its mark on each of them
const by = document.getElementById("by");
if (by) {
  by.hidden = false;
  by.querySelector("select").onchange = event => {
    const axis = event.target.value, shapes = all("defs path").filter(path => /^s\d$/.test(path.id)).length;
    for (const one of all(".legend[data-axis]")) one.hidden = one.dataset.axis !== axis;
    for (const link of all(".area a")) {
      const mark = +row(link).dataset.m.split(".")[axis];
      const best = link.classList.contains("best"), on = link.classList.contains("on");
      link.setAttribute("class", `k${mark % shapes}${mark < shapes ? "" : " h"}${best ? " best" : ""}${on ? " on" : ""}`);
      link.querySelector("use").setAttribute("href", `#s${mark % shapes}`);
    }
  };
}
