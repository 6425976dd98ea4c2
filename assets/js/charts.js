/* Charts of a run's series. Points are appended (Plotly.extendTraces), never redrawn, so zoom and hover survive. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const MAX_POINTS = 5000; // a trace longer than this is thinned to its extremes, for the browser's sake
  const OVERLAY = ["--st-c1", "--st-c2", "--st-c3", "--st-c4", "--st-c5"];
  const DASHES = ["solid", "dash", "dashdot", "longdash"];
  const HIDDEN = new Set(["epoch", "step", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "total_flos"]);

  /** The number that a series is of: validation stands beside training. */
  const baseOf = (name) => name.replace(/^eval_/, "");
  const isEval = (name) => name.startsWith("eval_");
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
    /** One number with its validation, or the lines that a spec of watched.js puts together. */
    constructor(place, spec, owner) {
      Object.assign(this, { name: spec.id, spec, owner, lines: [], made: null, queue: Promise.resolve(), several: Boolean(spec.lines || spec.each) });
      this.big = spec.big ?? this.name === "loss";
      this.title = spec.lines || spec.each || studio.known(`watch.${this.name}`) && owner.watched ? t(`watch.${this.name}`) : titleOf(this.name);
      const healthy = owner.watched?.healthy(this.name);
      this.element = document.createElement("figure");
      this.element.className = `st-chart${this.big ? " st-chart-main" : ""}`;
      this.element.dataset.chart = this.name;
      this.element.innerHTML = `<figcaption><b>${esc(this.title)}</b><span class="st-summary"></span></figcaption><div class="st-chart-told"></div>
        <div class="st-plot" role="img" aria-label="${esc(this.title)}"></div>${healthy ? `<p class="st-healthy"><span>${esc(t("watch.healthy"))}</span> ${esc(t(healthy))}</p>` : ""}`;
      place.append(this.element);
      this.plot = this.element.querySelector(".st-plot");
    }

    /** The name and the colour of a line. */
    style(name) {
      const base = baseOf(name), evaluation = isEval(name);
      if (!this.several) return { label: t(evaluation ? "chart.validation" : "chart.training"), color: evaluation ? "--st-eval" : "--st-accent" };
      const fixed = [...(this.spec.lines || []), ...(this.spec.right ? [this.spec.right] : [])].find(([n]) => n === base);
      const part = this.spec.each?.exec(base)?.[1];
      const label = part?.replaceAll("_", " ") ?? t(`watch.line.${base}`);
      const place = this.lines.filter((line) => !isEval(line.name)).findIndex((line) => line.name === base);
      return { label: evaluation ? `${label} · ${t("chart.validation")}` : label, color: fixed ? `--st-${fixed[1]}` : OVERLAY[Math.max(0, place) % OVERLAY.length] };
    }

    /** Lines that are drawn as such; the rest only bound a band. */
    drawnLines() { return this.lines.filter((line) => !this.spec.band?.includes(baseOf(line.name)) && this.spec.spread?.[1] !== baseOf(line.name)); }

    /** The area between the lowest and the highest, or around a mean. */
    band() {
      const { band, spread } = this.spec, of = (name) => this.lines.find((line) => line.name === name);
      const [one, two] = (band || spread || []).map(of);
      if (!one || !two) return [];
      const other = new Map(two.x.map((x, i) => [x, two.y[i]]));
      const rows = one.x.map((x, i) => [x, one.y[i], other.get(x)]).filter(([, a, b]) => a != null && b != null);
      const x = rows.map((row) => row[0]), low = rows.map(([, a, b]) => (band ? a : a - b)), high = rows.map(([, a, b]) => (band ? b : a + b));
      const plain = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
      return [{ ...plain, y: low }, { ...plain, y: high, fill: "tonexty", fillcolor: studio.token("--st-ring") }];
    }

    traces() {
      const out = this.band(), s = this.owner.smoothing;
      for (const line of this.drawnLines()) {
        const { label, color: token } = this.style(line.name), color = studio.token(token);
        const axis = this.spec.right?.[0] === baseOf(line.name) ? { yaxis: "y2" } : {};
        if (isEval(line.name))
          out.push({ x: [...line.x], y: [...line.y], name: label, mode: "lines+markers", line: { color, width: 1.8, dash: "dot" }, marker: { size: 6, color }, ...axis });
        else {
          out.push({ x: [...line.x], y: [...line.y], name: s ? t("chart.raw") : label, mode: line.x.length < 3 ? "lines+markers" : "lines", line: { color, width: s ? 1 : 1.8 }, opacity: s ? 0.3 : 1, hoverinfo: s ? "skip" : "all", ...axis });
          out.push({ x: [...line.x], y: [...line.smooth], name: label, mode: "lines", line: { color, width: 2 }, visible: s > 0, ...axis });
        }
      }
      for (const [place, other] of this.owner.overlays.entries()) {
        const names = Object.keys(other.series).filter((name) => this.owner.specOf(baseOf(name)).id === this.name && this.overlaid(name));
        for (const name of names) {
          const points = other.series[name];
          const y = points.map(([, v]) => { const n = value(v); return Number.isFinite(n) ? n : null; });
          const evaluation = isEval(name), what = this.several ? ` · ${this.style(name).label}` : evaluation ? ` · ${t("chart.validation")}` : "";
          const dash = evaluation ? "dot" : this.several ? DASHES[names.indexOf(name) % DASHES.length] : "solid";
          out.push({ x: points.map(([x]) => x), y, name: `${other.name}${what}`, mode: "lines", line: { color: studio.token(OVERLAY[place % OVERLAY.length]), width: 1.4, dash } });
        }
      }
      return out;
    }

    /** Whether another run's line is laid over this chart: not what bounds a band, nor a share on the right. */
    overlaid(name) {
      const { band, spread, right } = this.spec, base = baseOf(name);
      return !band?.includes(base) && spread?.[1] !== base && right?.[0] !== base;
    }

    layout() {
      const ink = studio.token("--st-muted"), grid = studio.token("--st-line");
      const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { size: 10.5, color: ink }, fixedrange: false };
      return {
        margin: { l: 46, r: 10, t: 6, b: 26 }, height: this.big ? 270 : 150, autosize: true, uirevision: "keep",
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: studio.token("--st-font"), size: 11, color: ink },
        xaxis: { ...axis, title: undefined, rangemode: "tozero", nticks: 7 }, yaxis: { ...axis, type: this.scaled(), nticks: this.big ? 7 : 4, exponentformat: "power" },
        ...(this.spec.right ? { yaxis2: { ...axis, overlaying: "y", side: "right", range: [0, 1.03], showgrid: false, tickformat: ".0%", tickmode: "array", tickvals: [0, 0.5, 1] }, margin: { l: 46, r: 40, t: 6, b: 26 } } : {}),
        showlegend: this.big && !this.several, legend: { orientation: "h", x: 1, xanchor: "right", y: 1.02, yanchor: "bottom", font: { size: 11 } },
        hovermode: "x unified", hoverlabel: { bgcolor: studio.token("--st-surface"), bordercolor: grid, font: { color: studio.token("--st-ink"), size: 11.5 } },
        dragmode: "zoom", shapes: this.oddMarks(),
      };
    }

    scaled() { return this.owner.log && !this.spec.signed ? "log" : "linear"; }

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
      const place = this.lines.slice(0, this.lines.indexOf(line)).reduce((n, l) => n + (isEval(l.name) ? 1 : 2), 0);
      const evaluation = isEval(line.name);
      this.then((P) => P.extendTraces(this.plot, evaluation ? { x: [xs], y: [ys] } : { x: [xs, xs], y: [ys, smooths] }, evaluation ? [place] : [place, place + 1]));
    }

    summary() {
      const parts = this.drawnLines().filter((line) => line.x.length).map((line) => {
        const { label, color } = this.style(line.name), share = this.spec.right?.[0] === baseOf(line.name);
        const odd = line.odd.length ? ` · ${t("chart.odd", { what: line.odd[0][1], step: line.odd[0][0] })}` : "";
        const low = /loss/.test(line.name) && line.minAt !== null && line.minAt !== line.lastStep ? ` (${t("chart.lowest", { value: studio.num(line.min), step: line.minAt })})` : "";
        return { color, label: this.several || this.lines.length > 1 ? `${label} ` : "", text: `${share ? `${Math.round(value(line.last) * 100)} %` : studio.num(line.last)}${low}${odd}` };
      });
      const place = this.element.querySelector(".st-summary");
      if (this.several && parts.length > 1) place.innerHTML = parts.map(({ color, label, text }) => `<span><i style="background:var(${color})"></i>${esc(label)}<b>${esc(text)}</b></span>`).join(" ");
      else place.textContent = parts.map(({ label, text }) => (this.several ? text : label + text)).join(" · ");
      this.plot.setAttribute("aria-label", `${this.title}: ${parts.map(({ label, text }) => label + text).join("; ")}`);
    }

    /** Say a warning of the run where its curve is. */
    tell(warning) {
      const note = document.createElement("p");
      note.innerHTML = `<b>${esc(warning.message)}</b> ${esc(warning.hint || "")}`;
      this.element.querySelector(".st-chart-told").append(note);
    }
  }

  /** All charts of one run (or only overlays, for a comparison). */
  class Charts {
    /** @param watched what studio.watched says of the run, if its numbers are put together. */
    constructor(place, watched = null) {
      place.innerHTML = `<div class="st-chart-tools"><label>${esc(t("chart.smoothing"))} <input type="range" min="0" max="0.98" step="0.02" value="0"></label>
        <label class="st-check"><input type="checkbox"> ${esc(t("chart.log"))}</label><span class="st-chart-extra"></span></div>
        <div class="st-charts"></div><details class="st-more-charts" hidden><summary>${esc(t("chart.more"))}</summary><div class="st-charts"></div></details>`;
      Object.assign(this, { place, watched, charts: {}, lines: {}, overlays: [], told: [], smoothing: 0, log: false });
      [this.main, this.more] = place.querySelectorAll(".st-charts");
      place.querySelector("input[type=range]").oninput = (event) => this.smooth(Number(event.target.value));
      place.querySelector("input[type=checkbox]").onchange = (event) => this.scale(event.target.checked);
      this.repaint = () => (place.isConnected ? this.redraw() : window.removeEventListener("studio:theme", this.repaint));
      window.addEventListener("studio:theme", this.repaint);
    }

    specOf(base) { return this.watched?.of(base) || { id: base }; }

    /** Whether a chart is in sight at once, and its place there. */
    rank(id) {
      if (this.watched) return this.watched.charts.findIndex((spec) => spec.id === id);
      return isMain(id) ? ["loss", "learning_rate", "grad_norm"].indexOf(id) + 1 || 9 : -1;
    }

    chart(name) {
      const spec = this.specOf(baseOf(name)), { id } = spec;
      if (!this.charts[id]) {
        const side = this.rank(id) >= 0;
        if (!side) this.place.querySelector(".st-more-charts").hidden = false;
        this.charts[id] = new Chart(side ? this.main : this.more, spec, this);
        if (side) this.main.append(...Object.keys(this.charts).filter((i) => this.rank(i) >= 0).sort((a, b) => this.rank(a) - this.rank(b)).map((i) => this.charts[i].element));
        for (const warning of this.told.filter(({ at }) => at === id)) this.charts[id].tell(warning);
      }
      return this.charts[id];
    }

    /** A warning, at the chart it speaks of; kept until that chart is there. */
    tell(at, warning) {
      this.told.push({ ...warning, at });
      this.charts[at]?.tell(warning);
    }

    clear() {
      for (const chart of Object.values(this.charts)) { chart.lines = []; chart.element.querySelector(".st-chart-told").innerHTML = ""; }
      this.lines = {};
      this.told = [];
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
          chart.lines.sort((a, b) => isEval(a.name) - isEval(b.name));
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
        if (fresh.has(chart) || !chart.drawn || (chart.touched && (chart.spec.band || chart.spec.spread))) { chart.drawn = true; chart.draw(); }
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
        chart.then((P) => P.relayout(chart.plot, { "yaxis.type": chart.scaled(), "yaxis.autorange": true }));
    }

    /** Past runs over this one: [{name, series}]. */
    overlay(others) {
      this.overlays = others;
      for (const other of others) for (const name of Object.keys(other.series)) if (!HIDDEN.has(name) && other.series[name].length && this.rank(this.specOf(baseOf(name)).id) >= 0) this.chart(name).drawn = true;
      this.redraw();
    }
  }
  studio.Charts = Charts;
})();
