// The archive in a browser: filters, trends, the difference of two runs. No library and no server.
// What a model or a server said reaches the page as text nodes only; nothing here ever parses HTML.
"use strict";

const gatebook = (() => {
  const MANY = 200; // cases that are shown before a button
  const KINDS = {
    worse: "newly failing", better: "fixed", other: "another outcome", answer: "same outcome, another answer",
    changed: "asked or judged differently", onlyA: "only in A", onlyB: "only in B", same: "the same",
  };
  const CHANGED = ["worse", "better", "other"];
  const SIGNS = { PASS: "✓", FAIL: "✗", ERROR: "!", INCONCLUSIVE: "?", pass: "✓", fail: "✗", error: "!", not_measured: "–" };
  const loads = new Map(), waiting = new Map();
  let summaries = [];

  const byId = (id) => document.getElementById(id);
  const words = (outcome) => `${SIGNS[outcome] ?? ""} ${outcome.replace("_", " ")}`;

  function make(name, attributes, ...children) {
    const made = name.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4)) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes ?? {})) if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
    made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined)); // strings become text nodes
    return made;
  }

  // ---- the list ----

  const whole = (run) => run.groups !== undefined;

  function matches(run, wanted) {
    for (const name of ["state", "profile", "revision", "suite"]) if (wanted.get(name) && run[name] !== wanted.get(name)) return false;
    const said = [run.key, run.state, run.reason, run.model, run.profile, run.revision, run.suite, run.commit, run.asked_by, run.engine, ...Object.keys(run.groups ?? {})];
    const text = said.join("\n").toLowerCase();
    return (wanted.get("text") ?? "").toLowerCase().split(/\s+/).every((word) => text.includes(word));
  }

  function filter() {
    const wanted = new FormData(byId("filters")), rows = new Map([...document.querySelectorAll("tr[data-key]")].map((row) => [row.dataset.key, row]));
    const shown = summaries.filter((run) => matches(run, wanted));
    const keys = new Set(shown.map((run) => run.key));
    for (const [key, row] of rows) row.hidden = !keys.has(key);
    byId("count").textContent = shown.length === summaries.length ? `${shown.length} runs` : `${shown.length} of ${summaries.length} runs`;
    trends(shown);
    remember();
  }

  function picked(name) {
    return new FormData(byId("pair")).get(name);
  }

  function pair() {
    const [a, b] = [picked("a"), picked("b")];
    byId("compare").disabled = !a || !b || a === b;
    byId("pairsaid").textContent = !a || !b ? "Choose two runs, A and B." : a === b ? "A and B are the same run." : "";
    remember();
  }

  // ---- the address keeps filters and pair, so that a view can be sent on ----

  function remember(open) {
    const kept = new URLSearchParams();
    for (const [name, value] of new FormData(byId("filters"))) if (value) kept.set(name, value);
    for (const name of ["a", "b"]) if (picked(name)) kept.set(name, picked(name));
    if (open ?? !byId("diff").hidden) kept.set("diff", "1");
    try {
      history.replaceState(null, "", `#${kept}`);
    } catch {
      // some browsers refuse it from disk; the view works without
    }
  }

  function recall() {
    const kept = new URLSearchParams(location.hash.slice(1));
    for (const field of byId("filters").elements) if (field.name && kept.has(field.name)) field.value = kept.get(field.name);
    const newest = summaries.filter(whole), wanted = { b: kept.get("b") ?? newest[0]?.key };
    wanted.a = kept.get("a") ?? newest.find((run) => run.key !== wanted.b && run.profile === newest[0].profile && run.suite === newest[0].suite)?.key ?? newest[1]?.key;
    for (const radio of byId("pair").querySelectorAll("input[type=radio]")) radio.checked = wanted[radio.name] === radio.value;
    return kept.has("diff");
  }

  // ---- trends: inline SVG, coloured by the style sheet ----

  function trends(shown) {
    const runs = shown.filter((run) => whole(run) && !run.partial && run.effort !== "quick").reverse();
    const names = [...new Set(runs.map(series))].sort();
    const charts = [chart("cases passed", runs, names, (run) => (run.cases ? run.passed / run.cases : null), percent, 1)];
    charts.push(chart("first token, median", runs, names, (run) => run.ttft_ms, ms), chart("per further token, median", runs, names, (run) => run.tpot_ms, ms));
    charts.push(chart("complete answer, median", runs, names, (run) => run.total_ms, ms), chart("GPU memory, peak", runs, names, (run) => run.memory_gb, (value) => `${value.toFixed(1)} GB`));
    const groups = [...new Set(runs.flatMap((run) => Object.keys(run.groups)))].sort();
    for (const group of groups) charts.push(chart(group, runs, names, (run) => (run.groups[group]?.[1] ? run.groups[group][0] / run.groups[group][1] : null), percent, 1));
    byId("charts").replaceChildren(...charts.filter(Boolean));
    const lines = ["solid", "dashed", "dotted", "dash-dotted"];
    byId("legend").textContent = names.length > 1 ? names.map((name, n) => `${lines[n % 4]}: ${name}`).join(" · ") : "";
    byId("trends").hidden = runs.length === 0;
  }

  const series = (run) => `${run.profile}, ${run.suite}, ${run.model}`;
  const percent = (value) => `${(value * 100).toFixed(1)} %`;
  const ms = (value) => (value < 100 ? `${value.toFixed(1)} ms` : `${value.toFixed(0)} ms`);

  function chart(title, runs, names, value, told, most) {
    const points = runs.map((run, n) => ({ run, n, y: value(run) })).filter((point) => typeof point.y === "number");
    if (!points.length) return null;
    const top = most ?? Math.max(...points.map((point) => point.y)) * 1.1, last = points.at(-1);
    const x = (n) => (runs.length > 1 ? 12 + (216 * n) / (runs.length - 1) : 120), y = (v) => 64 - 50 * (top ? v / top : 0);
    const drawn = make("svg:svg", { viewBox: "0 0 240 74", role: "img", "aria-label": `${title}: ${points.length} runs, last ${told(last.y)}, lowest ${told(Math.min(...points.map((p) => p.y)))}, highest ${told(Math.max(...points.map((p) => p.y)))}` });
    drawn.append(make("svg:line", { class: "axis", x1: 4, x2: 236, y1: 64, y2: 64 }), make("svg:line", { class: "axis", x1: 4, x2: 236, y1: y(top), y2: y(top) }));
    drawn.append(make("svg:text", { x: 5, y: y(top) - 3 }, told(top)));
    names.forEach((name, n) => {
      const own = points.filter((point) => series(point.run) === name);
      if (own.length > 1) drawn.append(make("svg:polyline", { class: `s${n % 4}`, points: own.map((point) => `${x(point.n)},${y(point.y)}`).join(" ") }));
    });
    for (const point of points) {
      const dot = make("svg:circle", { class: `dot ${point.run.state}`, cx: x(point.n), cy: y(point.y), r: 3 });
      dot.append(make("svg:title", {}, `${point.run.key}: ${told(point.y)}, ${point.run.state}, revision ${point.run.revision || "none named"}`));
      drawn.append(dot);
    }
    return make("figure", {}, make("figcaption", {}, make("span", {}, title), make("b", {}, told(last.y))), drawn);
  }

  // ---- the difference of two runs ----

  function load(key) {
    if (!loads.has(key)) {
      loads.set(key, new Promise((resolve, reject) => {
        waiting.set(key, resolve);
        const script = make("script", { src: `data/${encodeURIComponent(key)}.js` });
        script.onerror = () => reject(new Error(`data/${key}.js is missing; make the archive again`));
        document.head.append(script);
      }));
    }
    return loads.get(key);
  }

  const prompt = (request) => request.turns.filter((turn) => turn.kind === "prompt");
  const answer = (request) => request.turns.filter((turn) => turn.kind !== "prompt");
  const answers = (found) => JSON.stringify(found.requests.map(answer));

  function kindOf(a, b) {
    if (!a || !b) return a ? "onlyA" : "onlyB";
    if (a.asked !== b.asked || a.expected !== b.expected) return "changed";
    if (a.outcome !== b.outcome) return b.outcome === "pass" ? "better" : a.outcome === "pass" ? "worse" : "other";
    return answers(a) === answers(b) ? "same" : "answer";
  }

  function pairs(a, b) {
    const [before, after] = [a, b].map((run) => new Map(run.cases.map((found) => [found.id, found])));
    const found = [...new Set([...after.keys(), ...before.keys()])].map((id) => ({ id, a: before.get(id), b: after.get(id) }));
    const order = Object.keys(KINDS);
    for (const row of found) row.kind = kindOf(row.a, row.b);
    return found.sort((one, two) => order.indexOf(one.kind) - order.indexOf(two.kind));
  }

  async function compare() {
    const place = byId("diff"), head = make("h1", { id: "diffhead", tabindex: -1 }, "What changed from A to B");
    const back = make("button", { type: "button", class: "back" }, "← all runs");
    back.addEventListener("click", close);
    const body = make("div", {}, make("p", { class: "soft" }, "loading"));
    place.replaceChildren(back, head, body);
    byId("list").hidden = true;
    place.hidden = false;
    remember(true);
    scrollTo(0, 0);
    head.focus();
    try {
      const [a, b] = await Promise.all([load(picked("a")), load(picked("b"))]);
      body.replaceChildren(...difference(a, b).filter(Boolean));
    } catch (error) {
      body.replaceChildren(make("p", { class: "trouble" }, String(error.message)));
    }
  }

  function close() {
    byId("diff").hidden = true;
    byId("list").hidden = false;
    remember(false);
    byId("compare").focus();
  }

  function difference(a, b) {
    const rows = pairs(a, b), counts = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, rows.filter((row) => row.kind === kind).length]));
    const some = CHANGED.some((kind) => counts[kind]), list = make("div", { id: "cases" }), select = make("select", { id: "kind" });
    const options = { changed_outcome: `another outcome, all (${CHANGED.reduce((sum, kind) => sum + counts[kind], 0)})`, ...Object.fromEntries(Object.entries(KINDS).map(([kind, label]) => [`=${kind}`, `${label} (${counts[kind]})`])), all: `all cases (${rows.length})` };
    for (const [value, label] of Object.entries(options)) select.append(make("option", { value }, label));
    const fill = () => show(list, rows.filter((row) => select.value === "all" || (select.value === "changed_outcome" ? CHANGED.includes(row.kind) : select.value === `=${row.kind}`)));
    select.value = some ? "changed_outcome" : counts.answer ? "=answer" : "all";
    select.addEventListener("change", fill);
    fill();
    return [
      make("div", { class: "sides" }, about("A", a.summary), about("B", b.summary)),
      make("h2", {}, "Groups"), groups(rows),
      a.summary.texts !== false ? make("p", { class: "soft" }, "Whether a change of a group is more than chance: ", make("code", {}, `gatebook compare runs/${a.summary.key} runs/${b.summary.key}`)) : null,
      make("h2", {}, "Cases"), make("p", {}, make("label", {}, "show ", select)), list,
    ];
  }

  function about(name, run) {
    const facts = { run: make("a", { href: `runs/${encodeURIComponent(run.key)}/index.html` }, run.key), model: run.model, revision: run.revision || "none named", server: run.base_url, engine: run.engine, started: `${run.created.slice(0, 16).replace("T", " ")} UTC`, suite: `${run.profile}, ${run.suite}`, passed: `${run.passed} of ${run.cases}` };
    const list = Object.entries(facts).map(([key, value]) => make("div", {}, make("dt", {}, key), make("dd", {}, value)));
    return make("div", {}, make("h2", {}, `${name} `, make("span", { class: run.state }, `${words(run.state)}${run.partial ? " PARTIAL" : ""}${run.effort ? ` ${run.effort.toUpperCase()}` : ""}`)), make("dl", { class: "facts one" }, list));
  }

  function groups(rows) {
    const paired = rows.filter((row) => row.a && row.b && row.kind !== "changed");
    const lines = [...new Set(paired.map((row) => row.b.group))].sort().map((group) => {
      const own = paired.filter((row) => row.b.group === group), count = (test) => own.filter(test).length;
      const [lost, won] = [count((row) => row.kind === "worse"), count((row) => row.kind === "better")];
      return make("tr", {}, make("th", { scope: "row" }, group), ...[["pairs", own.length], ["A passed", count((row) => row.a.outcome === "pass")], ["B passed", count((row) => row.b.outcome === "pass")]].map(([label, n]) => make("td", { "data-l": label }, String(n))),
        make("td", { "data-l": "newly failing", class: lost ? "fail tag" : null }, String(lost)), make("td", { "data-l": "fixed", class: won ? "pass tag" : null }, String(won)));
    });
    const head = ["group", "pairs", "A passed", "B passed", "newly failing", "fixed"].map((name) => make("th", { scope: "col" }, name));
    return make("div", { class: "table" }, make("table", { class: "cards" }, make("thead", {}, make("tr", {}, head)), make("tbody", {}, lines)));
  }

  function show(list, rows) {
    list.replaceChildren(...rows.slice(0, MANY).map((row, n) => line(row, n < 3 && rows.length < 20)));
    if (rows.length > MANY) {
      const more = make("button", { type: "button" }, `${rows.length - MANY} more`);
      more.addEventListener("click", () => more.replaceWith(...rows.slice(MANY).map((row) => line(row, false))));
      list.append(more);
    }
    if (!rows.length) list.append(make("p", {}, "None."));
  }

  function line(row, open) {
    const known = row.b ?? row.a, outcome = (found) => (found ? make("span", { class: found.outcome }, words(found.outcome)) : "not there");
    const made = make("details", { class: "row" }, make("summary", {}, make("b", {}, row.id), " ", make("span", { class: "soft" }, `${known.group} · ${KINDS[row.kind]} · `), make("span", { class: "was" }, outcome(row.a), " → ", outcome(row.b))));
    const fill = () => made.childElementCount > 1 || made.append(detail(row, known));
    made.addEventListener("toggle", () => made.open && fill());
    if (open) fill();
    made.open = open;
    return made;
  }

  function detail(row, known) {
    const prompts = (found) => found.requests.map((request) => [request.name ? make("p", { class: "soft ask" }, request.name) : null, prompt(request).map(turn)]);
    const asked = row.kind === "changed" && row.a && row.b ? make("div", { class: "sides" }, make("div", {}, make("h4", {}, "A asked"), prompts(row.a)), make("div", {}, make("h4", {}, "B asked"), prompts(row.b))) : make("div", {}, prompts(known));
    return make("div", { class: "case" }, make("p", { class: "soft" }, known.why), asked, make("div", { class: "sides" }, said("A", row.a), said("B", row.b)));
  }

  function said(name, found) {
    if (!found) return make("div", {}, make("h4", {}, name), make("p", { class: "soft" }, "this run has no such case"));
    const parts = found.requests.map((request) => [request.name ? make("p", { class: "soft ask" }, request.name) : null, answer(request).length ? answer(request).map(turn) : make("p", { class: "soft" }, "no answer"), make("p", { class: "soft" }, request.facts.join(" · "))]);
    return make("div", {}, make("h4", {}, `${name}: `, make("span", { class: found.outcome }, words(found.outcome))), make("p", {}, found.reason), parts);
  }

  function turn(one) {
    const shown = [make("p", { class: "soft who" }, one.who), make("pre", { dir: "auto", lang: one.lang || null, tabindex: 0 }, one.text)];
    if (one.more) shown.push(make("small", { class: "soft" }, `${one.more.toLocaleString("en")} more characters in the record`));
    return shown;
  }

  // ---- what the data files call ----

  function runs(_, text) {
    summaries = JSON.parse(text);
    if (summaries.some((run) => run.texts === false)) KINDS.same = "same outcome";
    const open = recall();
    byId("filters").addEventListener("input", filter);
    byId("filters").addEventListener("reset", () => setTimeout(filter));
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("pair").addEventListener("change", pair);
    byId("pair").addEventListener("submit", (event) => {
      event.preventDefault();
      if (!byId("compare").disabled) compare();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !byId("diff").hidden) close();
    });
    filter();
    pair();
    if (open && !byId("compare").disabled) compare();
  }

  function run(key, text) {
    waiting.get(key)?.(JSON.parse(text));
  }

  return { runs, run };
})();
