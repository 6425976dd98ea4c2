/* What is special of a judged evaluation: marks or wins, and whether this judge can be believed, in plain words. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const SHADES = ["--st-c1", "--st-c2", "--st-c3", "--st-c4", "--st-c5"], FEW = 30;
  const KAPPA = [[0, "none"], [0.2, "slight"], [0.4, "fair"], [0.6, "moderate"], [0.8, "substantial"], [Infinity, "full"]]; // Landis and Koch 1977
  const percent = (v) => (v == null ? "–" : `${Math.round(100 * v)} %`), two = (v) => (v == null ? "–" : v.toFixed(2));
  const count = (n) => Number(n || 0).toLocaleString("en");
  const isNumber = (v) => typeof v === "number" && isFinite(v);

  /** Who beat whom, as in the arena. */
  const matrix = ({ names, share, battles }) => {
    const cell = (i, j) => (share[i][j] == null ? "<td></td>" : `<td style="--win:${share[i][j]}" title="${esc(t("judge.matrix.cell", { a: names[i], b: names[j], share: percent(share[i][j]), n: battles[i][j] }))}">${percent(share[i][j])}</td>`);
    return `<div class="jd-scroll"><table class="ar-matrix"><thead><tr><td></td>${names.map((name, i) => `<th scope="col" title="${esc(name)}">${i + 1}</th>`).join("")}</tr></thead>
      <tbody>${names.map((name, i) => `<tr><th scope="row" title="${esc(name)}"><small>${i + 1}</small> ${esc(name)}</th>${names.map((_, j) => cell(i, j)).join("")}</tr>`).join("")}</tbody></table></div><p class="st-muted">${esc(t("judge.matrix.help"))}</p>`;
  };

  /** One question about the judge: a mark, and what is known. `good` true, false, or null where nothing can be said. */
  const line = (name, good, said, more = "") => `<li class="jd-line jd-is-${good === null ? "open" : good ? "good" : "bad"}" data-line="${name}"><i aria-hidden="true"></i><div><b>${esc(t(`judge.${name}`))}</b><p>${said.filter(Boolean).map(esc).join(" ")}</p>${more}</div></li>`;

  const people = (found) => {
    if (!found) return line("people", null, [t("judge.people.none")]);
    if (!found.n) return line("people", false, [t("judge.people.lost", { n: found.battles })]);
    const word = KAPPA.find(([high]) => found.kappa < high || found.kappa === high && high > 0)?.[1], words = ["a", "tie", "b"], same = { same: percent(found.same), n: found.n };
    const said = [found.same_decided == null ? t("judge.people.said.plain", same) : t("judge.people.said", { ...same, decided: percent(found.same_decided) }),
      found.kappa == null ? t("judge.people.kappa.none") : t("judge.people.kappa", { word: t(`judge.kappa.${word}`), kappa: two(found.kappa), low: two(found.low), high: two(found.high) }), found.n < FEW && t("judge.people.few")];
    const table = `<details><summary>${esc(t("judge.people.table"))}</summary><div class="jd-scroll"><table class="st-table jd-both"><thead><tr><th scope="col">${esc(t("judge.people.corner"))}</th>${words.map((w) => `<th scope="col" class="st-num">${esc(t(`judge.word.${w}`))}</th>`).join("")}</tr></thead>
      <tbody>${found.table.map((row, i) => `<tr><th scope="row">${esc(t(`judge.word.${words[i]}`))}</th>${row.map((n, j) => `<td class="st-num${i === j ? " jd-same" : ""}">${n}</td>`).join("")}</tr>`).join("")}</tbody></table></div></details>`;
    const one = (b) => `<article><p class="jd-asked">${esc(b.prompt)}</p><div class="jd-sides">${["a", "b"].map((side, i) => `<section><small>${esc(b.models[i])}</small><p>${esc(b[side])}</p></section>`).join("")}</div>
      <p><b>${esc(t("judge.verdict", { people: t(`judge.word.${b.people}`), judge: t(`judge.word.${b.judge}`) }))}</b> ${b.reasons.map((r) => `<span class="st-muted">${esc(r)}</span>`).join(" ")}</p></article>`;
    const differ = found.differ?.length ? `<details class="jd-differ"><summary>${esc(t("judge.people.differ", { n: found.differ.length }))}</summary>${found.differ.map(one).join("")}</details>` : "";
    return line("people", found.kappa == null || found.n < FEW ? null : found.low > 0 && found.kappa > 0.4, said, table + differ);
  };

  const position = (found) => {
    if (!found) return line("position", null, [t("judge.position.none")]);
    if (!found.pairs) return line("position", null, [t("judge.position.empty")]);
    const said = t(found.consistent == null ? "judge.position.one" : "judge.position.both", { consistent: found.consistent, first: found.first, second: found.second, n: found.pairs });
    return line("position", !found.biased, [said, t(found.biased ? "judge.position.bad" : "judge.position.good")]);
  };

  const length = (found, voted) => {
    const marks = found.kind === "marks", value = marks ? found.value : found.share;
    if (value == null) return line("length", null, [t("judge.length.none")]);
    const told = marks ? { value: two(value), low: two(found.low), high: two(found.high) } : { n: found.n, share: percent(value), low: percent(found.low), high: percent(found.high) };
    return line("length", !found.biased, [t(marks ? "judge.length.marks" : "judge.length.pairs", told), !marks && voted?.longer_people?.share != null && t("judge.length.people", { share: percent(voted.longer_people.share) }), t(found.biased ? "judge.length.bad" : "judge.length.good")]);
  };

  const itself = (found) => {
    if (!found || found.own == null) return line("itself", null, [t("judge.itself.none")]);
    const pairs = found.kind === "pairs", show = pairs ? percent : two;
    return line("itself", found.biased == null ? null : !found.biased, [t(pairs ? "judge.itself.pairs" : "judge.itself.marks", { own: show(found.own), others: show(found.others) }), found.people != null && t("judge.itself.people", { people: percent(found.people) }),
      t(found.biased == null ? "judge.itself.open" : found.biased ? "judge.itself.bad" : "judge.itself.good")]);
  };

  const form = (f) => line("form", !(f.undecided || f.failed), [f.undecided ? t("judge.form.bad", { n: count(f.undecided), all: count(f.judged + f.undecided), said: f.said }) : !f.failed && t("judge.form.good"),
    f.failed && t("judge.form.failed", { n: count(f.failed) }), f.inconsistent && t("judge.form.contradicts", { n: count(f.inconsistent) }), f.same_answer && t("judge.form.same", { n: count(f.same_answer) })]);

  /** Bars for each model; its numbers as a table below. */
  const histogram = (place, models, rows) => {
    const steps = rows[0].map((_, i) => i + 1), plot = place.querySelector(".st-plot");
    const draw = async () => {
      const P = await studio.plotly().catch((error) => { plot.textContent = error.message; });
      if (!P || !plot.isConnected) return;
      plot.style.height = "230px";
      const ink = studio.token("--st-muted"), grid = studio.token("--st-line"), axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { size: 10.5, color: ink }, fixedrange: true };
      const title = (key) => ({ text: t(key), font: { size: 11.5, color: ink }, standoff: 6 });
      const traces = rows.map((values, i) => ({ type: "bar", name: models[i].label, x: steps, y: values, marker: { color: studio.token(SHADES[i % SHADES.length]) }, hovertext: steps.map((mark, j) => esc(t("judge.marks.bar", { label: models[i].label, mark, n: values[j] }))), hoverinfo: "text" }));
      await P.react(plot, traces, { margin: { l: 48, r: 10, t: rows.length > 1 ? 30 : 8, b: 42 }, height: 230, autosize: true, bargap: 0.25, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: studio.token("--st-font"), size: 11, color: ink }, dragmode: false,
        showlegend: rows.length > 1, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } }, hoverlabel: { bgcolor: studio.token("--st-surface"), bordercolor: grid, font: { color: studio.token("--st-ink"), size: 11.5 } },
        xaxis: { ...axis, showgrid: false, dtick: 1, range: [0.4, 10.6], title: title("judge.marks.x") }, yaxis: { ...axis, rangemode: "tozero", nticks: 5, tickformat: "d", title: title("judge.marks.y") } }, { displayModeBar: false, responsive: true });
      plot.dataset.drawn = "yes";
    };
    studio.evalRedraw(place, draw);
  };

  /** Draw now, and again in the colours of another theme, for as long as the place is there. */
  studio.evalRedraw = (place, draw) => {
    const again = () => (place.isConnected ? draw() : window.removeEventListener("studio:theme", again));
    window.addEventListener("studio:theme", again);
    draw();
  };

  studio.evalPanel("eval/judge", (place, { results }) => {
    const f = results.facts || {};
    if (!f.judge) return;
    place.className = "jd";
    const marks = f.histogram?.some((row) => row.some(Boolean)), cost = f.cost ? t("judge.cost", { cost: studio.num(f.cost) }) : "";
    const table = marks ? `<details><summary>${esc(t("judge.numbers"))}</summary><div class="jd-scroll"><table class="st-table"><thead><tr><th scope="col">${esc(t("judge.marks"))}</th>${f.histogram[0].map((_, i) => `<th scope="col" class="st-num">${i + 1}</th>`).join("")}</tr></thead><tbody>${f.histogram.map((row, i) => `<tr><th scope="row">${esc(results.models[i].label)}</th>${row.map((n) => `<td class="st-num">${n}</td>`).join("")}</tr>`).join("")}</tbody></table></div></details>` : "";
    place.innerHTML = `<div class="jd-two"><section class="jd-said"><div class="ev-part-head"><h2>${esc(t("judge.title", { judge: f.judge }))}</h2></div>
        <p class="st-muted">${[t("judge.counts", { n: count(f.judged), questions: count(f.questions) }), t("judge.tokens", { read: count(f.tokens_read), written: count(f.tokens_written) }), cost].filter(Boolean).map(esc).join(" ")}</p>
        ${f.matrix?.names?.length > 1 ? matrix(f.matrix) : ""}${marks ? `<div class="st-plot" role="img" aria-label="${esc(t("judge.marks.plot"))}"></div>${table}` : ""}</section>
      <section class="jd-trust"><div class="ev-part-head"><h2>${esc(t("judge.believe"))}</h2></div><ul>${people(f.people)}${f.mode === "pairwise" ? position(f.position) : ""}${isNumber(f.length?.n) ? length(f.length, f.people) : ""}${f.itself ? itself(f.itself) : ""}${form(f)}</ul></section></div>`;
    if (marks) histogram(place, results.models, f.histogram);
  });
})();
