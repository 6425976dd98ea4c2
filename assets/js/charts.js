/* Charts of a run's series. Points are appended (Plotly.extendTraces), never redrawn, so zoom and hover survive. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const MAX_POINTS = 5000; // a trace longer than this is thinned to its extremes, for the browser's sake
  const OVERLAY = ["--st-c1", "--st-c2", "--st-c3", "--st-c4", "--st-c5"];
  const HIDDEN = new Set(["epoch", "step", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "total_flos"]);

  /** Which chart a series belongs to: validation beside training. */
  const chartOf = (name) => name.replace(/^eval_/, "");
  const isSpeed = (name) => /tok.*(per_sec|_s$|\/s)/.test(name);
  const isMain = (name) => ["loss", "learning_rate", "grad_norm"].includes(name) || isSpeed(name);
  const titleOf = (name) => {
    const key = `chart.${isSpeed(name) ? "tokens_per_second" : name}`, text = t(key);
    return text === key ? name.replaceAll("_", " ") : text;
  };
  /** A value as it arrived: a number, or NaN and infinity by name. */
  const value = (v) => (typeof v === "number" ? v : v === null ? NaN : Number(String(v).replace("inf", "Inf")));

  class Line {
    constructor(name) { Object.assign(this, { name, x: [], y: [], smooth: [], ema: null, odd: [], min: Infinity, minAt: null }); }

    /** Take new points; returns what to append: [xs, ys, smooths]. */
    push(points, weight) {
      const xs = [], ys = [], smooths = [];
      for (const [step, raw] of points) {
        const v = value(raw);
        const fine = Number.isFinite(v);
        if (!fine) this.odd.push([step, Number.isNaN(v) ? "NaN" : String(v)]);
        else if (v < this.min) { this.min = v; this.minAt = step; }
        if (fine) this.ema = this.ema === null ? v : weight * this.ema + (1 - weight) * v;
        xs.push(step); ys.push(fine ? v : null); smooths.push(fine ? this.ema : null);
        this.last = raw; this.lastStep = step;
        if (this.first === undefined) this.first = raw;
      }
      this.x.push(...xs); this.y.push(...ys); this.smooth.push(...smooths);
      return [xs, ys, smooths];
    }

    resmooth(weight) {
      this.ema = null;
      this.smooth = this.y.map((v) => (v === null ? null : (this.ema = this.ema === null ? v : weight * this.ema + (1 - weight) * v)));
    }

    /** Keep the extremes of each bucket; true if anything was dropped. */
    thin(weight) {
      if (this.x.length <= MAX_POINTS) return false;
      const bucket = Math.ceil(this.x.length / (MAX_POINTS / 4)), keep = [];
      for (let i = 0; i < this.x.length; i += bucket) {
        let low = i, high = i;
        for (let j = i; j < Math.min(i + bucket, this.x.length); j++) {
          if (this.y[j] === null) { keep.push(j); continue; }
          if (!(this.y[j] >= this.y[low])) low = j;
          if (!(this.y[j] <= this.y[high])) high = j;
        }
        keep.push(low, high);
      }
      const order = [...new Set(keep)].sort((a, b) => a - b);
      this.x = order.map((i) => this.x[i]);
      this.y = order.map((i) => this.y[i]);
      this.resmooth(weight);
      return true;
    }
  }

  class Chart {
    constructor(place, name, owner) {
      Object.assign(this, { name, owner, lines: [], made: null, queue: Promise.resolve() });
      this.element = document.createElement("figure");
      this.element.className = `st-chart${name === "loss" ? " st-chart-main" : ""}`;
      this.element.dataset.chart = name;
      this.element.innerHTML = `<figcaption><b>${esc(titleOf(name))}</b><span class="st-summary"></span></figcaption><div class="st-plot" role="img" aria-label="${esc(titleOf(name))}"></div>`;
      place.append(this.element);
      this.plot = this.element.querySelector(".st-plot");
    }

    traces() {
      const out = [], s = this.owner.smoothing;
      for (const line of this.lines) {
        const evaluation = line.name.startsWith("eval_"), color = studio.token(evaluation ? "--st-eval" : "--st-accent");
        const label = t(evaluation ? "chart.validation" : "chart.training");
        if (evaluation)
          out.push({ x: [...line.x], y: [...line.y], name: label, mode: "lines+markers", line: { color, width: 1.8, dash: "dot" }, marker: { size: 6, color } });
        else {
          out.push({ x: [...line.x], y: [...line.y], name: s ? t("chart.raw") : label, mode: line.x.length < 3 ? "lines+markers" : "lines", line: { color, width: s ? 1 : 1.8 }, opacity: s ? 0.3 : 1, hoverinfo: s ? "skip" : "all" });
          out.push({ x: [...line.x], y: [...line.smooth], name: label, mode: "lines", line: { color, width: 2 }, visible: s > 0 });
        }
      }
      this.own = out.length;
      for (const [place, other] of this.owner.overlays.entries())
        for (const name of [this.name, `eval_${this.name}`]) {
          const points = other.series[name];
          if (!points) continue;
          const y = points.map(([, v]) => { const n = value(v); return Number.isFinite(n) ? n : null; });
          const evaluation = name.startsWith("eval_");
          out.push({ x: points.map(([x]) => x), y, name: `${other.name}${evaluation ? ` · ${t("chart.validation")}` : ""}`, mode: "lines",
            line: { color: studio.token(OVERLAY[place % OVERLAY.length]), width: 1.4, dash: evaluation ? "dot" : "solid" } });
        }
      return out;
    }

    layout() {
      const ink = studio.token("--st-muted"), grid = studio.token("--st-line");
      const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { size: 10.5, color: ink }, fixedrange: false };
      return {
        margin: { l: 46, r: 10, t: 6, b: 26 }, height: this.name === "loss" ? 270 : 150, autosize: true, uirevision: "keep",
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: studio.token("--st-font"), size: 11, color: ink },
        xaxis: { ...axis, title: undefined, rangemode: "tozero", nticks: 7 }, yaxis: { ...axis, type: this.owner.log ? "log" : "linear", nticks: this.name === "loss" ? 7 : 4, exponentformat: "power" },
        showlegend: this.name === "loss", legend: { orientation: "h", x: 1, xanchor: "right", y: 1.02, yanchor: "bottom", font: { size: 11 } },
        hovermode: "x unified", hoverlabel: { bgcolor: studio.token("--st-surface"), bordercolor: grid, font: { color: studio.token("--st-ink"), size: 11.5 } },
        dragmode: "zoom", shapes: this.oddMarks(),
      };
    }

    /** A thin line where a value was no number. */
    oddMarks() {
      const color = studio.token("--st-bad");
      return this.lines.flatMap((line) => line.odd.slice(0, 50).map(([step]) => ({ type: "line", x0: step, x1: step, y0: 0, y1: 1, yref: "paper", line: { color, width: 1 } })));
    }

    /** Plotly calls of one chart happen one after the other. */
    then(work) {
      this.queue = this.queue.then(async () => { const P = await studio.plotly(); if (this.plot.isConnected) await work(P); }).catch((error) => console.warn("chart:", error));
    }

    draw() {
      const traces = this.traces(), layout = this.layout(); // as of now: what comes later is appended later
      this.then((P) => P.react(this.plot, traces, layout, {
        displaylogo: false, responsive: true, displayModeBar: "hover",
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "sendDataToCloud", "toggleSpikelines"],
      }).then(() => { this.made = true; }));
    }

    /** Append points to one of our lines. */
    extend(line, xs, ys, smooths) {
      const place = this.lines.slice(0, this.lines.indexOf(line)).reduce((n, l) => n + (l.name.startsWith("eval_") ? 1 : 2), 0);
      const evaluation = line.name.startsWith("eval_");
      this.then((P) => P.extendTraces(this.plot, evaluation ? { x: [xs], y: [ys] } : { x: [xs, xs], y: [ys, smooths] }, evaluation ? [place] : [place, place + 1]));
    }

    summary() {
      const parts = this.lines.filter((line) => line.x.length).map((line) => {
        const label = this.lines.length > 1 ? `${t(line.name.startsWith("eval_") ? "chart.validation" : "chart.training")} ` : "";
        const odd = line.odd.length ? ` · ${t("chart.odd", { what: line.odd[0][1], step: line.odd[0][0] })}` : "";
        const low = /loss/.test(line.name) && line.minAt !== null && line.minAt !== line.lastStep ? ` (${t("chart.lowest", { value: studio.num(line.min), step: line.minAt })})` : "";
        return `${label}${studio.num(line.last)}${low}${odd}`;
      });
      this.element.querySelector(".st-summary").textContent = parts.join(" · ");
      this.plot.setAttribute("aria-label", `${titleOf(this.name)}: ${parts.join("; ")}`);
    }
  }

  /** All charts of one run (or only overlays, for a comparison). */
  class Charts {
    constructor(place) {
      place.innerHTML = `<div class="st-chart-tools"><label>${esc(t("chart.smoothing"))} <input type="range" min="0" max="0.98" step="0.02" value="0"></label>
        <label class="st-check"><input type="checkbox"> ${esc(t("chart.log"))}</label><span class="st-chart-extra"></span></div>
        <div class="st-charts"></div><details class="st-more-charts" hidden><summary>${esc(t("chart.more"))}</summary><div class="st-charts"></div></details>`;
      Object.assign(this, { place, charts: {}, lines: {}, overlays: [], smoothing: 0, log: false });
      [this.main, this.more] = place.querySelectorAll(".st-charts");
      place.querySelector("input[type=range]").oninput = (event) => this.smooth(Number(event.target.value));
      place.querySelector("input[type=checkbox]").onchange = (event) => this.scale(event.target.checked);
      this.repaint = () => (place.isConnected ? this.redraw() : window.removeEventListener("studio:theme", this.repaint));
      window.addEventListener("studio:theme", this.repaint);
    }

    chart(name) {
      const id = chartOf(name);
      if (!this.charts[id]) {
        const side = isMain(id);
        if (!side) this.place.querySelector(".st-more-charts").hidden = false;
        this.charts[id] = new Chart(side ? this.main : this.more, id, this);
        if (side) ["loss", "learning_rate", "grad_norm"].reverse().forEach((n) => this.charts[n] && this.main.prepend(this.charts[n].element));
      }
      return this.charts[id];
    }

    clear() {
      for (const chart of Object.values(this.charts)) { chart.lines = []; }
      this.lines = {};
    }

    /** Add points: {name: [[step, value], …]}. */
    add(series) {
      const fresh = new Set();
      for (const [name, points] of Object.entries(series)) {
        if (HIDDEN.has(name) || !points.length) continue;
        const chart = this.chart(name);
        let line = this.lines[name];
        if (!line) {
          line = this.lines[name] = new Line(name);
          chart.lines.push(line);
          chart.lines.sort((a, b) => a.name.startsWith("eval_") - b.name.startsWith("eval_"));
          fresh.add(chart);
        }
        const odd = line.odd.length, few = line.x.length < 3;
        const added = line.push(points, this.smoothing);
        if (line.thin(this.smoothing) || line.odd.length > odd || (few && line.x.length >= 3)) fresh.add(chart);
        else if (!fresh.has(chart)) { chart.pending ??= []; chart.pending.push([line, ...added]); }
        chart.touched = true;
      }
      for (const chart of Object.values(this.charts)) {
        // Only a chart whose lines changed shape is drawn anew (zoom is kept by uirevision); the rest are appended to.
        if (fresh.has(chart) || !chart.drawn) { chart.drawn = true; chart.draw(); }
        else for (const args of chart.pending || []) chart.extend(...args);
        chart.pending = null;
        if (chart.touched) { chart.summary(); chart.touched = false; }
      }
    }

    redraw() { for (const chart of Object.values(this.charts)) { chart.draw(); chart.summary(); } }

    smooth(weight) {
      this.smoothing = weight;
      for (const line of Object.values(this.lines)) line.resmooth(weight);
      this.redraw();
    }

    scale(log) {
      this.log = log;
      for (const chart of Object.values(this.charts))
        chart.then((P) => P.relayout(chart.plot, { "yaxis.type": log ? "log" : "linear", "yaxis.autorange": true }));
    }

    /** Past runs over this one: [{name, series}]. */
    overlay(others) {
      this.overlays = others;
      for (const other of others) for (const name of Object.keys(other.series)) if (!HIDDEN.has(name) && other.series[name].length && isMain(chartOf(name))) this.chart(name).drawn = true;
      this.redraw();
    }
  }
  studio.Charts = Charts;
})();
