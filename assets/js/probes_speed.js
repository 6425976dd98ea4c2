/* Speed of several models: tokens a second by askers, waiting by length, ways of generating, time between tokens, memory. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t, { HUES, isNumber, hue, part, legend } = studio.probes;
  const num = (v) => (isNumber(v) ? studio.num(v, 3) : "–");

  /** Plots of one panel; they are drawn again when the theme changes. */
  class Plots {
    constructor(place) {
      this.made = [];
      const repaint = () => (place.isConnected ? this.draw() : window.removeEventListener("studio:theme", repaint));
      window.addEventListener("studio:theme", repaint);
    }

    add(element, traces, axes) { this.made.push({ element, traces, axes }); }

    draw() {
      const ink = studio.token("--st-muted"), grid = studio.token("--st-line");
      const axis = (title, more) => ({ title: { text: title, font: { size: 11.5, color: ink }, standoff: 8 }, gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { size: 10.5, color: ink }, fixedrange: true, nticks: 6, ...more });
      for (const one of this.made) {
        const layout = { margin: { l: 58, r: 12, t: 10, b: 42 }, height: 250, autosize: true, showlegend: false, hovermode: "closest", dragmode: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", bargap: 0.35, font: { family: studio.token("--st-font"), size: 11, color: ink },
          hoverlabel: { bgcolor: studio.token("--st-surface"), bordercolor: grid, font: { color: studio.token("--st-ink"), size: 11.5 } }, xaxis: axis(...one.axes.x), yaxis: axis(one.axes.y, { rangemode: "tozero" }) };
        one.drawn = (one.drawn || Promise.resolve()).then(async () => {
          const P = await studio.plotly();
          if (one.element.isConnected && one.element.getClientRects().length) await P.react(one.element, one.traces(), layout, { displayModeBar: false, responsive: true });
        }).catch((error) => { one.element.textContent = error.message; });
      }
    }
  }

  /** Medians with their quarters as error bars, a line a model. */
  const lines = (models, points, x, y) => () => models.map((model, n) => {
    const own = points.filter((one) => one.model === n && y(one)).sort((a, b) => x(a) - x(b)), color = studio.token(HUES[n % HUES.length]);
    const value = own.map(y);
    return { x: own.map(x), y: value.map((v) => v.value), name: model.label, mode: "lines+markers", line: { color, width: 2 }, marker: { color, size: 7 }, error_y: { type: "data", symmetric: false, array: value.map((v) => v.high - v.value), arrayminus: value.map((v) => v.value - v.low), color, thickness: 1.2, width: 3 },
      hovertext: own.map((one, i) => `<b>${esc(model.label)}</b><br>${num(x(one))}: ${num(value[i].value)} (${num(value[i].low)}–${num(value[i].high)})`), hoverinfo: "text" };
  });

  const bars = (models, points) => () => models.map((model, n) => {
    const own = points.filter((one) => one.model === n), color = studio.token(HUES[n % HUES.length]);
    return { type: "bar", x: own.map((one) => t(`probes.way.${one.way}`)), y: own.map((one) => one.value), name: model.label, marker: { color }, error_y: { type: "data", symmetric: false, array: own.map((one) => one.high - one.value), arrayminus: own.map((one) => one.value - one.low), color: studio.token("--st-ink"), thickness: 1.2, width: 3 },
      hovertext: own.map((one) => `<b>${esc(model.label)}</b><br>${num(one.value)} (${num(one.low)}–${num(one.high)})`), hoverinfo: "text" };
  });

  studio.evalPanel("eval/speed", (place, { results }) => {
    const { latency = [], throughput = [], context = [], ways = [], engines = [], machine = {}, new_tokens: tokens, repeats } = results.facts, models = results.models;
    const columns = [["ttft", (one) => num(one.scores?.ttft_ms)], ["between50", (one) => num(one.scores?.inter_token_p50_ms)], ["between95", (one) => num(one.scores?.inter_token_p95_ms)], ["rate", (one) => num(one.scores?.tokens_per_second)],
      ["peak", (one, engine) => (engine.peak ? studio.bytes(engine.peak) : "–")], ["size", (one, engine) => (engine.size ? studio.bytes(engine.size) : "–")], ["load", (one, engine) => (isNumber(engine.load_seconds) ? `${num(engine.load_seconds)} s` : "–")], ["device", (one, engine) => [engine.device, engine.dtype].filter(Boolean).join(" ") || "–"]];
    const table = `<div class="pb-scroll" tabindex="0" role="region" aria-label="${esc(t("probes.speed"))}"><table class="st-table pb-speed"><thead><tr><th scope="col">${esc(t("probes.model"))}</th>${columns.map(([name]) => `<th scope="col" class="st-num">${esc(t(`probes.speed.${name}`))}</th>`).join("")}</tr></thead><tbody>${models.map((model, n) => {
      const one = latency.find((each) => each.model === n) || {}, engine = engines.find((each) => each.model === n) || {}, notes = [one.counted === false ? t("probes.uncounted") : "", one.streams === false ? t("probes.no_stream") : "", one.tokens_per_piece > 1.5 ? t("probes.pieces", { n: num(one.tokens_per_piece) }) : "", one.burst ? t("probes.burst") : ""].filter(Boolean);
      return `<tr><th scope="row"><i class="pb-dot" style="background:${hue(n)}"></i>${esc(model.label)}${notes.length ? `<small>${esc(notes.join(" "))}</small>` : ""}</th>${columns.map(([, of]) => `<td class="st-num">${esc(of(one, engine))}</td>`).join("")}</tr>`;
    }).join("")}</tbody></table></div>`;
    const plot = (name, label) => `<figure class="pb-plot"><figcaption>${esc(label)}</figcaption><div data-plot="${name}" role="img" aria-label="${esc(label)}"></div></figure>`;
    place.className = "pb";
    place.innerHTML = part(t("probes.speed"), t("probes.speed.about", { tokens, repeats }), (machine.busy ? `<p class="st-finding st-level-warning">${esc(t("probes.busy", { load: num(machine.load_before), cores: machine.cores }))}</p>` : "") + table)
      + part(t("probes.speed.plots"), t("probes.speed.plots.about"), legend(models.map((m) => m.label)) + `<div class="pb-plots">${throughput.length ? plot("throughput", t("probes.plot.throughput")) + plot("wait", t("probes.plot.wait")) : ""}${context.length ? plot("ttft", t("probes.plot.ttft")) + plot("decode", t("probes.plot.decode")) : ""}${ways.length ? plot("ways", t("probes.plot.ways")) : ""}</div>`);
    const plots = new Plots(place), at = (name) => place.querySelector(`[data-plot="${name}"]`);
    const askers = [t("probes.axis.askers"), { type: "log", tickvals: [...new Set(throughput.map((one) => one.askers))], ticktext: [...new Set(throughput.map((one) => one.askers))].map(String) }], length = [t("probes.axis.context"), {}];
    if (at("throughput")) plots.add(at("throughput"), lines(models, throughput, (one) => one.askers, (one) => one), { x: askers, y: t("probes.axis.rate") });
    if (at("wait")) plots.add(at("wait"), lines(models, throughput, (one) => one.askers, (one) => one.ttft_ms), { x: askers, y: t("probes.axis.ms") });
    if (at("ttft")) plots.add(at("ttft"), lines(models, context, (one) => one.prompt_tokens || one.context, (one) => one.ttft_ms), { x: length, y: t("probes.axis.ms") });
    if (at("decode")) plots.add(at("decode"), lines(models, context, (one) => one.prompt_tokens || one.context, (one) => one.tokens_per_second), { x: length, y: t("probes.axis.rate") });
    if (at("ways")) plots.add(at("ways"), bars(models, ways), { x: ["", {}], y: t("probes.axis.rate") });
    plots.draw();
  });
})();
