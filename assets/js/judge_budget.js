/* What more answers are worth: accuracy against the tokens (or the number) of the answers, one line for each way to choose. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const WAYS = { pass_at_k: "--st-faint", best_of_n: "--st-c2", self_consistency: "--st-c1", greedy: "--st-c3" }, DASHES = ["solid", "dash", "dot", "dashdot"], STROKES = ["none", "7 4", "2 3", "7 3 2 3"];
  const percent = (v) => (v == null ? "–" : `${(100 * v).toFixed(1)} %`), whole = (n) => (n == null ? "–" : Math.round(n).toLocaleString("en"));
  const way = (name) => t(`budget.method.${name}`);

  class Budget {
    constructor(place, results) {
      Object.assign(this, { place, models: results.models, facts: results.facts, curve: results.facts.curve });
      this.told = this.curve.every((p) => p.tokens != null);
      this.by = this.told ? "tokens" : "n";
      place.className = "jd";
      const option = (name) => `<option value="${name}" ${name === this.by ? "selected" : ""}>${esc(t(`budget.by.${name}`))}</option>`;
      place.innerHTML = `<div class="ev-part-head"><h2>${esc(t("budget.title"))}</h2><div class="ev-tools">${this.told ? `<label>${esc(t("budget.axis"))} <select data-by>${option("tokens")}${option("n")}</select></label>` : ""}</div></div>
        ${this.models.map((_, i) => `<p class="jd-say">${esc(this.say(i))}</p>`).join("")}
        <div class="jd-legend" aria-hidden="true">${this.legend()}</div><div class="st-plot" role="img" aria-label="${esc(t("budget.plot"))}"></div>
        <p class="st-muted">${esc(t("budget.help", { drawn: this.facts.drawn, questions: this.facts.questions }))}${this.told ? "" : ` ${esc(t("budget.no_tokens"))}`}</p>${this.table()}`;
      place.querySelector("[data-by]")?.addEventListener("change", (event) => { this.by = event.target.value; this.draw(); });
      studio.evalRedraw(place, () => this.draw());
    }

    of(model, method) { return this.curve.filter((p) => p.model === model && p.method === method).sort((a, b) => a.n - b.n); }

    /** What the curves say, as sentences. */
    say(model) {
      const one = this.curve.find((p) => p.model === model && p.n === 1 && p.method !== "greedy"), label = this.models[model].label;
      const said = one ? [t("budget.said", { label, one: percent(one.value) })] : [`${label}:`];
      for (const method of ["self_consistency", "best_of_n", "pass_at_k"]) { const last = this.of(model, method).at(-1); if (last && last.n > 1) said.push(t(`budget.said.${method}`, { n: last.n, value: percent(last.value) })); }
      return said.join(" ");
    }

    /** Colours are ways, lines are models. */
    legend() {
      const there = Object.keys(WAYS).filter((method) => this.curve.some((p) => p.method === method));
      const ways = there.map((method) => `<span><i class="jd-dot${method === "greedy" ? " jd-diamond" : ""}" style="background:var(${WAYS[method]})"></i>${esc(way(method))}</span>`);
      return ways.join("") + (this.models.length > 1 ? this.models.map((model, i) => `<span><svg width="30" height="8"><line x1="0" y1="4" x2="30" y2="4" stroke="currentColor" stroke-width="2" stroke-dasharray="${STROKES[i % STROKES.length]}"/></svg>${esc(model.label)}</span>`).join("") : "");
    }

    table() {
      const several = this.models.length > 1;
      return `<details><summary>${esc(t("budget.numbers"))}</summary><div class="jd-scroll"><table class="st-table"><thead><tr>${several ? `<th scope="col">${esc(t("arena.model"))}</th>` : ""}<th scope="col">${esc(t("budget.way"))}</th>${["n", "value", "error", "tokens", "questions"].map((key) => `<th scope="col" class="st-num">${esc(t(`budget.${key}`))}</th>`).join("")}</tr></thead>
        <tbody>${this.curve.map((p) => `<tr>${several ? `<td>${esc(this.models[p.model].label)}</td>` : ""}<td>${esc(way(p.method))}</td><td class="st-num">${p.n}</td><td class="st-num">${percent(p.value)}</td><td class="st-num">${percent(p.stderr)}</td><td class="st-num">${whole(p.tokens)}</td><td class="st-num">${p.questions}</td></tr>`).join("")}</tbody></table></div></details>`;
    }

    traces() {
      const several = this.models.length > 1;
      return this.models.flatMap((model, i) => Object.keys(WAYS).map((method) => {
        const points = this.of(i, method), color = studio.token(WAYS[method]), alone = method === "greedy";
        return points.length && {
          x: points.map((p) => p[this.by]), y: points.map((p) => p.value), name: several ? `${model.label}: ${way(method)}` : way(method), mode: alone ? "markers" : "lines+markers", line: { color, width: 2, dash: DASHES[i % DASHES.length] },
          marker: { color, size: alone ? 11 : 7, symbol: alone ? "diamond" : "circle" }, error_y: { type: "data", array: points.map((p) => p.stderr || 0), color, thickness: 1.1, width: 3 },
          hovertext: points.map((p) => esc(t("budget.hover", { way: several ? `${model.label}: ${way(method)}` : way(method), n: p.n, value: percent(p.value), error: percent(p.stderr), tokens: whole(p.tokens) }))), hoverinfo: "text",
        };
      }).filter(Boolean));
    }

    async draw() {
      const plot = this.place.querySelector(".st-plot"), ink = studio.token("--st-muted"), grid = studio.token("--st-line");
      const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { size: 10.5, color: ink }, fixedrange: true }, traces = this.traces();
      const xs = [...new Set(this.curve.map((p) => p[this.by]))].sort((a, b) => a - b), narrow = plot.clientWidth < 480, height = narrow ? 290 : 320;
      const twos = Array.from({ length: 24 }, (_, i) => 2 ** i).filter((n) => n >= xs[0] * 0.9 && n <= xs.at(-1) * 1.1);
      const all = this.by === "n" ? xs : twos.length > 1 ? twos : xs, ticks = all.filter((_, i) => all.length < (narrow ? 7 : 12) || i % 2 === 0);
      const layout = {
        margin: { l: 52, r: 16, t: 10, b: 44 }, height, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: studio.token("--st-font"), size: 11, color: ink }, dragmode: false, hovermode: "closest",
        showlegend: false, hoverlabel: { bgcolor: studio.token("--st-surface"), bordercolor: grid, font: { color: studio.token("--st-ink"), size: 11.5 }, align: "left" },
        xaxis: { ...axis, type: "log", tickmode: "array", tickvals: ticks, ticktext: ticks.map(whole), title: { text: t(`budget.axis.${this.by}`), font: { size: 11.5, color: ink }, standoff: 8 } },
        yaxis: { ...axis, tickformat: ".0%", nticks: 7, title: { text: t("budget.accuracy"), font: { size: 11.5, color: ink }, standoff: 6 } },
      };
      try {
        const P = await studio.plotly();
        if (!plot.isConnected) return;
        plot.style.height = `${height}px`;
        await P.react(plot, traces, layout, { displayModeBar: false, responsive: true });
        plot.dataset.drawn = "yes";
      } catch (error) { plot.textContent = error.message; }
    }
  }

  studio.evalPanel("eval/budget", (place, { results }) => { if (results.facts?.curve?.length) new Budget(place, results); });
})();
