/* 'Learn it': a slider of bits over what a run measured: weights before and after, error by layer, perplexity, answers. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const LINES = { "absmax tensor": ["--st-accent", "dot"], "absmax row": ["--st-accent", "solid"], "zeropoint tensor": ["--st-c2", "dot"], "zeropoint row": ["--st-c2", "solid"] };
  const percent = (n) => `${(100 * n).toFixed(n < 0.1 ? 2 : 1)} %`;

  class Lesson {
    constructor(live) {
      Object.assign(this, { live, run: live.run, bits: 8, scheme: "absmax", granularity: "tensor", part: "layer" });
      this.place = Object.assign(document.createElement("div"), { className: "qz-view qz-learn" });
      live.root.querySelector(".st-run-grid").before(this.place);
      const repaint = () => (this.place.isConnected ? this.found && this.draw() : window.removeEventListener("studio:theme", repaint));
      window.addEventListener("studio:theme", repaint);
      this.look();
    }

    async look() {
      if (this.found || this.asking || this.live.state !== "succeeded") {
        if (!this.found && studio.active(this.live.state)) this.place.innerHTML = `<div class="st-card"><div class="st-working" role="status">${esc(t("learn.working"))}</div></div>`;
        else if (!this.found && this.live.state && this.live.state !== "succeeded") this.place.innerHTML = "";
        return;
      }
      this.asking = true;
      try {
        this.found = await studio.call("quantize_learn", { run: this.run });
        this.frame();
      } catch (error) { this.place.innerHTML = `<div class="st-card st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`; }
      this.asking = false;
    }

    frame() {
      const { found } = this, stops = (this.stops = [...found.bits].sort((a, b) => b - a));
      this.bits = stops.includes(4) ? 4 : stops[0];
      this.scheme = found.schemes[0];
      this.granularity = found.granularities[0];
      const radios = (name, values) => `<div class="qz-choice" role="radiogroup" aria-label="${esc(t(`learn.${name}`))}">${values.map((v) => `<label title="${esc(t(`learn.${name}.${v}.about`))}"><input type="radio" name="qz-${name}-${this.run}" data-set="${name}" value="${esc(v)}" ${v === this[name] ? "checked" : ""}><span>${esc(t(`learn.${name}.${v}`))}</span></label>`).join("")}</div>`;
      const figure = (id, extra = "") => `<figure class="st-card" data-figure="${id}"><figcaption><b>${esc(t(`learn.${id}`))}</b>${extra}</figcaption><p class="qz-why" aria-live="polite"></p><div class="qz-chart" role="img"></div></figure>`;
      this.place.innerHTML = `<div class="st-card qz-board"><div class="qz-slider"><label for="qz-bits-${this.run}">${esc(t("learn.bits"))}</label>
          <input type="range" id="qz-bits-${this.run}" min="0" max="${stops.length - 1}" step="1" value="${stops.indexOf(this.bits)}" list="qz-stops-${this.run}"><output></output>
          <span class="qz-stops" aria-hidden="true">${stops.map((n) => `<i>${n}</i>`).join("")}</span></div>
        ${radios("scheme", found.schemes)}${radios("granularity", found.granularities)}
        <p class="qz-how"></p><dl class="st-tiles"></dl></div>
        <div class="qz-figures">${figure("histogram", `<span class="qz-choice qz-small">${["layer", "all"].map((p) => `<label><input type="radio" name="qz-part-${this.run}" data-set="part" value="${p}" ${p === this.part ? "checked" : ""}><span>${esc(t(`learn.part.${p}`))}</span></label>`).join("")}</span>`)}${figure("perplexity")}${figure("layers")}
        <figure class="st-card" data-figure="samples"><figcaption><b>${esc(t("learn.samples"))}</b></figcaption><p class="qz-why" aria-live="polite"></p><div class="qz-said"></div></figure></div>`;
      const slider = (this.slider = this.place.querySelector("input[type=range]"));
      slider.oninput = () => { this.bits = stops[slider.value]; this.draw(); };
      this.place.addEventListener("change", ({ target }) => { if (target.dataset.set) { this[target.dataset.set] = target.value; this.draw(); } });
      this.draw();
    }

    at(bits = this.bits, scheme = this.scheme, granularity = this.granularity) {
      return this.found.results.find((r) => r.bits === bits && r.scheme === scheme && r.granularity === granularity);
    }

    draw() {
      const { found, bits } = this, now = this.at(), before = found.original;
      if (!now) return;
      const values = this.scheme === "absmax" ? 2 ** bits - 1 : 2 ** bits;
      this.place.querySelector("output").textContent = studio.bits(bits);
      this.slider.setAttribute("aria-valuetext", studio.bits(bits));
      this.place.querySelector(".qz-how").textContent = `${t(`learn.scheme.${this.scheme}.about`)} ${t(`learn.granularity.${this.granularity}.about`)}`;
      const tile = (key, text, more = "") => `<div><dt>${esc(t(`learn.tile.${key}`))}</dt><dd>${esc(text)}${more ? ` <small>${esc(more)}</small>` : ""}</dd></div>`;
      this.place.querySelector(".st-tiles").innerHTML = tile("values", studio.num(values)) + tile("size", studio.bytes(now.size), t("learn.of", { before: studio.bytes(before.size) })) + tile("error", percent(now.relative)) + tile("perplexity", studio.num(now.perplexity, 4), t("learn.was", { before: studio.num(before.perplexity, 4) }));
      const worst = [...now.layers].sort((a, b) => b.relative - a.relative)[0], same = now.samples.filter((s) => s.same).length, rise = now.perplexity / before.perplexity - 1;
      const say = (id, text) => (this.place.querySelector(`[data-figure=${id}] .qz-why`).textContent = text);
      say("histogram", t(bits > 5 ? "learn.why.histogram.many" : "learn.why.histogram.few", { n: values, name: this.part === "layer" ? now.layer.name : t("learn.part.all") }));
      say("layers", t("learn.why.layers", { name: worst.name, value: percent(worst.relative) }));
      say("perplexity", t(rise < 0.005 ? "learn.why.perplexity.same" : rise < 0.25 ? "learn.why.perplexity.more" : rise < 1 ? "learn.why.perplexity.worse" : "learn.why.perplexity.broken", { value: percent(rise), times: studio.num(1 + rise, 3), bits: studio.bits(bits) }));
      say("samples", t(same === now.samples.length ? "learn.why.samples.same" : "learn.why.samples.differ", { n: same, of: now.samples.length }));
      this.place.querySelector(".qz-said").innerHTML = now.samples.map((s, i) => { const [a, b] = studio.differ(before.samples[i]?.text, s.text); return `<section><h4>${esc(s.prompt)}</h4><div class="qz-pair"><p><span class="qz-tag">${esc(t("learn.original"))}</span>${a}</p><p><span class="qz-tag">${esc(studio.bits(bits))}</span>${b}</p></div></section>`; }).join("");
      this.histogram(now, before);
      this.layers(now);
      this.curve(before);
      studio.say(t("learn.told", { bits: studio.bits(bits), value: studio.num(now.perplexity, 4) }));
    }

    layout(more) {
      const ink = studio.token("--st-muted"), grid = studio.token("--st-line"), axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { size: 10.5, color: ink }, fixedrange: true };
      return { margin: { l: 58, r: 10, t: 44, b: 36 }, height: 230, autosize: true, dragmode: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: studio.token("--st-font"), size: 11, color: ink }, showlegend: true, legend: { orientation: "h", x: 1, xanchor: "right", y: 1.02, yanchor: "bottom", font: { size: 11 } },
        hoverlabel: { bgcolor: studio.token("--st-surface"), bordercolor: grid, font: { color: studio.token("--st-ink"), size: 11.5 } }, ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis } };
    }

    paint(id, traces, layout, label, click) {
      const place = this.place.querySelector(`[data-figure=${id}] .qz-chart`);
      place.setAttribute("aria-label", label);
      this.drawn = (this.drawn || Promise.resolve()).then(async () => {
        const P = await studio.plotly();
        if (!place.isConnected || !place.getClientRects().length) return;
        await P.react(place, traces, layout, { displayModeBar: false, responsive: true });
        if (click && !place.dataset.bound) { place.dataset.bound = "yes"; place.on("plotly_click", (event) => click(event.points[0])); }
      }).catch((error) => { place.textContent = error.message; });
    }

    histogram(now, before) {
      const one = this.part === "layer", first = one ? before.layer : before.histogram, second = one ? now.layer : now.histogram;
      const middle = first.edges.slice(1).map((edge, i) => (edge + first.edges[i]) / 2), width = first.edges[1] - first.edges[0];
      const bars = (name, counts, color, opacity) => ({ type: "bar", name, x: middle, y: counts, width, marker: { color: studio.token(color), line: { width: 0 } }, opacity, hovertemplate: `%{x:.3g}: %{y:,}<extra>${esc(name)}</extra>` });
      this.paint("histogram", [bars(t("learn.before"), first.counts, "--st-faint", 0.55), bars(t("learn.after"), second.counts, "--st-accent", 0.9)],
        this.layout({ barmode: "overlay", bargap: 0, xaxis: { nticks: 7, showgrid: false, range: [first.edges[0] - width, first.edges.at(-1) + width] }, yaxis: { type: "log", dtick: 1, exponentformat: "power", title: { text: t("learn.axis.weights"), standoff: 4 } } }), t("learn.histogram"));
    }

    layers(now) {
      const names = now.layers.map((l) => l.name), values = now.layers.map((l) => l.relative);
      this.paint("layers", [{ type: "bar", x: names.map((_, i) => i), y: values, customdata: names, marker: { color: values.map((v) => studio.token(v === Math.max(...values) ? "--st-bad" : "--st-accent")) }, hovertemplate: "%{customdata}: %{y:.2%}<extra></extra>" }],
        this.layout({ showlegend: false, margin: { l: 58, r: 10, t: 8, b: 30 }, bargap: 0.2, xaxis: { showticklabels: false, showgrid: false, title: { text: t("learn.axis.layers"), standoff: 6 } }, yaxis: { tickformat: ".2~p", rangemode: "tozero", nticks: 5 } }), t("learn.layers"));
    }

    curve(before) {
      const { found } = this, seen = found.results.map((r) => r.perplexity), wide = Math.max(...seen) > 20 * Math.min(...seen), lines = found.schemes.flatMap((s) => found.granularities.map((g) => [s, g])), order = [...this.stops].reverse();
      const traces = lines.map(([s, g]) => { const [color, dash] = LINES[`${s} ${g}`] || ["--st-c3", "solid"], mine = s === this.scheme && g === this.granularity; return {
        x: order, y: order.map((b) => this.at(b, s, g)?.perplexity), customdata: order.map((b) => [b, s, g]), mode: "lines+markers", name: t("learn.line", { scheme: t(`learn.scheme.${s}`), granularity: t(`learn.granularity.${g}.short`) }), opacity: mine ? 1 : 0.45,
        line: { color: studio.token(color), width: mine ? 2.4 : 1.4, dash }, marker: { size: order.map((b) => (mine && b === this.bits ? 12 : 5)), color: studio.token(color) }, hovertemplate: "%{x}: %{y:.4g}<extra>%{fullData.name}</extra>" }; });
      const line = { type: "line", xref: "paper", x0: 0, x1: 1, y0: before.perplexity, y1: before.perplexity, line: { color: studio.token("--st-good"), width: 1.5, dash: "dash" } };
      this.paint("perplexity", traces, this.layout({ shapes: [line], margin: { l: 58, r: 10, t: 48, b: 36 }, xaxis: { tickvals: order, title: { text: t("learn.bits"), standoff: 4 }, autorange: "reversed", showgrid: false }, yaxis: { type: "log", ...(wide ? { dtick: 1 } : { nticks: 6 }), exponentformat: "power" } }), t("learn.perplexity"), (point) => {
        const [bits, scheme, granularity] = point.customdata || [];
        if (bits === undefined) return;
        Object.assign(this, { bits, scheme, granularity });
        this.slider.value = this.stops.indexOf(bits);
        for (const box of this.place.querySelectorAll("[data-set]")) box.checked = box.value === this[box.dataset.set];
        this.draw();
      });
    }
  }
  studio.Lesson = Lesson;
})();
