/* Bars and lines of a report, drawn with plotly in the colours of the page; a bar that is clicked, or its line in the table under
   the plot, shows its rows. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const count = (n) => studio.dataRow.count(n);
  const HEIGHT = 210;
  const SHADES = ["--st-accent", "--st-bad", "--st-faint"];

  const layout = (spec) => {
    const ink = studio.token("--st-muted"), grid = studio.token("--st-line");
    const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { size: 10.5, color: ink }, automargin: true, fixedrange: true };
    const lines = (spec.lines || []).map((line) => ({ type: "line", x0: line.at, x1: line.at, yref: "paper", y0: 0, y1: 1, line: { color: studio.token("--st-eval"), width: 1.6, dash: "dash" } }));
    const notes = (spec.lines || []).map((line) => ({ x: spec.log ? Math.log10(line.at) : line.at, y: 1, yref: "paper", text: line.text, showarrow: false, xanchor: line.left ? "right" : "left", yanchor: "bottom", font: { size: 10.5, color: studio.token("--st-eval") } }));
    return {
      margin: { l: 46, r: 12, t: lines.length ? 18 : spec.legend ? 26 : 6, b: 30 }, height: spec.height || HEIGHT, autosize: true, bargap: spec.wide ? 0.04 : 0.25, barmode: "stack", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: studio.token("--st-font"), size: 11, color: ink }, showlegend: !!spec.legend, legend: { orientation: "h", traceorder: "normal", x: 1, xanchor: "right", y: 1.02, yanchor: "bottom", font: { size: 11 } },
      xaxis: { ...axis, ...(spec.flat ? { gridcolor: grid } : { showgrid: false }), type: spec.x || spec.flat ? "linear" : "category", rangemode: "tozero", nticks: 8 },
      yaxis: { ...axis, ...(spec.flat ? { type: "category", autorange: "reversed", showgrid: false, ticksuffix: "  " } : { rangemode: "tozero", nticks: 5 }) },
      hovermode: "closest", hoverlabel: { bgcolor: studio.token("--st-surface"), bordercolor: grid, font: { color: studio.token("--st-ink"), size: 11.5 } }, dragmode: false, shapes: lines, annotations: notes,
    };
  };

  const traces = (spec) => {
    const color = (i) => studio.token(spec.colors?.[i] || SHADES[i % SHADES.length]);
    if (spec.kind === "line") return [{ x: spec.x, y: spec.y, mode: spec.x.length < 3 ? "lines+markers" : "lines", line: { color: color(0), width: 2 }, hovertemplate: "%{x:,} → %{y:,}<extra></extra>" }];
    return spec.series.map((series, i) => {
      const names = spec.shown || spec.names || spec.x, hover = (spec.hover || names).map((name, j) => `${esc(name)}: ${count(series.values[j])}${spec.series.length > 1 ? ` ${esc(series.name)}` : ""}`);
      const base = { type: "bar", ...(spec.flat ? { width: 0.62 } : {}), name: series.name, marker: { color: color(i) }, hovertext: hover, hoverinfo: "text", textposition: "none" };
      return spec.flat ? { ...base, orientation: "h", y: names, x: series.values } : { ...base, x: spec.x || names, y: series.values, ...(spec.widths ? { width: spec.widths } : {}) };
    });
  };

  /** One figure (`single`: all rows in one bar, which a sentence says better): title, a sentence, the plot, its numbers as a table. `pick(i, series)` opens the rows of a bar. */
  class Plot {
    constructor(place, spec) {
      Object.assign(this, { spec, element: Object.assign(document.createElement("figure"), { className: `st-card st-dv-plot${spec.big ? " st-dv-big" : ""}` }) });
      this.element.dataset.plot = spec.id;
      const heads = spec.kind === "line" ? [spec.xname, spec.yname] : [spec.xname || t("dataview.plot.value"), ...(spec.series.length > 1 ? spec.series.map((s) => s.name) : [t("dataview.plot.rows")])];
      const lines = spec.kind === "line" ? spec.x.map((x, i) => [count(x), count(spec.y[i])]) : (spec.hover || spec.names).map((name, i) => [name, ...spec.series.map((s) => count(s.values[i]))]);
      this.element.innerHTML = `<figcaption><b>${esc(spec.title)}</b>${spec.action ? `<button type="button" class="st-btn st-small" data-plot-action>${esc(spec.action.label)}</button>` : ""}</figcaption>
        ${spec.said ? `<p class="st-dv-said">${spec.said}</p>` : ""}<div class="st-plot${spec.single ? " st-dv-single" : ""}${spec.pick ? " st-dv-clickable" : ""}" role="img" aria-label="${esc(`${spec.title}. ${(spec.said || "").replace(/<[^>]+>/g, "")}`)}"></div>
        <details class="st-dv-numbers"><summary>${esc(t("dataview.plot.table"))}</summary><div><table class="st-table"><thead><tr>${heads.map((h, i) => `<th scope="col" class="${i ? "st-num" : ""}">${esc(h)}</th>`).join("")}</tr></thead><tbody>${lines.map((cells, i) =>
          `<tr>${cells.map((cell, j) => `<td class="${j ? "st-num" : ""}">${j === 0 && spec.pick ? `<button type="button" class="st-link" data-pick="${i}">${esc(cell)}</button>` : esc(cell)}</td>`).join("")}</tr>`).join("")}</tbody></table></div></details>`;
      place.append(this.element);
      this.plot = this.element.querySelector(".st-plot");
      this.element.addEventListener("click", (event) => {
        const at = event.target.dataset?.pick;
        if (at !== undefined) spec.pick(Number(at), 0);
        if (event.target.dataset?.plotAction !== undefined) spec.action.do();
      });
      this.draw();
    }

    async draw() {
      const { spec } = this;
      if (spec.single) return void (this.element.dataset.drawn = "yes");
      try {
        const P = await studio.plotly();
        if (!this.plot.isConnected) return;
        if (spec.flat) spec.height = Math.max(90, (spec.legend ? 64 : 44) + 24 * spec.names.length);
        this.plot.style.height = `${spec.height || HEIGHT}px`;
        await P.react(this.plot, traces(spec), layout(spec), { displayModeBar: false, responsive: true });
        if (spec.pick && !this.bound) { this.bound = true; this.plot.on("plotly_click", (event) => { const p = event.points[0]; spec.pick(p.pointIndex ?? p.pointNumber, p.curveNumber); }); }
        this.element.dataset.drawn = "yes";
      } catch (error) { this.plot.textContent = error.message; }
    }
  }
  studio.DataPlot = Plot;
})();
