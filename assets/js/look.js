/* Look inside: the view with its four methods, and the panels of the logit lens and of attention by head. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t, { part, isNumber, percent } = studio.probes;
  const RUNS = 8, MEASURES = ["top", "final", "next", "entropy"];
  /** A token as it is seen: spaces and line breaks have signs. */
  const seen = (text) => String(text ?? "").replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/^ | $/g, "·") || "∅";
  const bits = (v) => (isNumber(v) ? t("look.bits", { n: v.toFixed(2) }) : "–");
  const marks = (tokens) => ({ tickvals: tokens.map((_, i) => i), ticktext: tokens.map((one) => esc(seen(one))) });

  /** A plot in the colours of the theme, drawn again when they change. */
  const plot = (element, traces, more = {}, height = 260) => {
    const draw = async () => {
      const P = await studio.plotly().catch((error) => { element.textContent = error.message; });
      if (!P || !element.isConnected || !element.getClientRects().length) return;
      const ink = studio.token("--st-muted"), grid = studio.token("--st-line");
      const axis = (own) => ({ gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { size: 10.5, color: ink }, fixedrange: true, ...own, title: { text: own?.title || "", font: { size: 11.5, color: ink }, standoff: 8 } });
      await P.react(element, traces(), { margin: { l: 64, r: 14, t: 12, b: 46, ...more.margin }, height, autosize: true, dragmode: false, showlegend: Boolean(more.legend), legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 } }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: studio.token("--st-font"), size: 11, color: ink }, hoverlabel: { bgcolor: studio.token("--st-surface"), bordercolor: grid, font: { color: studio.token("--st-ink"), size: 11.5 } }, xaxis: axis(more.x), yaxis: axis(more.y), ...(more.y2 ? { yaxis2: { ...axis(more.y2), overlaying: "y", side: "right", showgrid: false } } : {}) }, { displayModeBar: false, responsive: true });
      element.dataset.drawn = "yes";
    };
    studio.evalRedraw(element, draw);
    return draw;
  };
  studio.look = { plot, seen, shades: () => [[0, studio.token("--st-surface")], [1, studio.token("--st-accent")]] };

  class View {
    constructor(place) {
      Object.assign(this, { place, shown: "" });
      place.innerHTML = `<div class="ev-start"><div class="ev-start-main"><header class="ev-head"><h1>${esc(t("look.title"))}</h1><p class="st-muted">${esc(t("look.lead"))}</p></header><div class="ev-cards lk-cards"></div></div>
        <aside class="ev-start-side"><section data-runs hidden><h2>${esc(t("look.recent"))}</h2><div data-recent></div></section></aside></div>`;
      place.querySelector(".lk-cards").innerHTML = studio.methodsOf("look").map(([name, m]) => `<article class="ev-card"><button type="button" data-method="${esc(name)}"><b>${esc(m.title)}</b><span>${esc(m.summary)}</span></button>${m.paper ? studio.dataParts.paperLink(m.paper) : ""}</article>`).join("");
      place.addEventListener("click", (event) => {
        const { method, run } = event.target.closest("button")?.dataset || {};
        if (method) studio.evalStart({ kind: "look", method });
        else if (run) studio.evalOpen(run);
      });
    }
    async recent() {
      const runs = (await studio.call("eval_runs")).filter((run) => run.kind === "look");
      const html = runs.length ? `<ul class="ev-recent">${runs.slice(0, RUNS).map((run) => `<li><button type="button" data-run="${esc(run.id)}"><b>${esc(run.label)}</b><span>${run.state !== "succeeded" ? studio.pill(run.state) : ""}${esc([studio.methodOf("look", run.method).title, studio.ago(run.ended || run.created)].join(" · "))}</span></button></li>`).join("")}</ul>` : "";
      this.place.querySelector("[data-runs]").hidden = !runs.length;
      if (html !== this.shown) this.place.querySelector("[data-recent]").innerHTML = this.shown = html;
    }
  }
  let view = null;
  studio.evalView("look", { order: 60, shown(place) { view ??= new View(place); view.recent().catch(() => {}); } });

  // ---- logit lens: a table of layers and positions; a click on a token draws its way through the layers

  studio.evalPanel("look/lens", (place, { results }) => {
    const { tokens = [], layers = [], positions = [], norm, vocabulary } = results.facts, most = Math.log2(vocabulary || 2);
    if (!layers.length) return;
    let measure = "top", at = positions.length - 1;
    place.className = "pb";
    const name = (n) => (n === 0 ? t("look.embeddings") : n === layers.length - 1 ? t("look.output") : t("look.layer", { n }));
    const value = (layer, i) => (measure === "top" ? layer.top[i][0][1] : measure === "entropy" ? layer.entropy[i] / most : layer[measure][i]);
    const told = (layer, i) => (measure === "top" ? seen(layer.top[i][0][0]) : measure === "entropy" ? layer.entropy[i].toFixed(1) : isNumber(layer[measure][i]) ? percent(layer[measure][i]) : "–");
    const hint = (layer, i) => `${layer.top[i].map(([text, chance]) => `${seen(text)} ${percent(chance)}`).join("\n")}\n${t("look.lens.cell", { final: seen(positions[i].final), chance: percent(layer.final[i]), rank: studio.num(layer.rank[i] + 1) })}\n${bits(layer.entropy[i])}`;
    place.innerHTML = part(t("look.lens"), `${t("look.lens.about")} ${norm ? t("look.lens.norm", { name: norm }) : t("look.lens.norm.none")}`,
      `<div class="ev-switch lk-switch" role="group" aria-label="${esc(t("look.measure"))}">${MEASURES.map((one) => `<button type="button" data-measure="${one}">${esc(t(`look.measure.${one}`))}</button>`).join("")}</div>
       <div class="pb-scroll lk-lens" tabindex="0" role="region" aria-label="${esc(t("look.lens"))}"></div>`)
      + part(t("look.lens.way"), "", `<p class="lk-said" role="status"></p><div class="lk-plot" data-plot="way"></div>`);
    const table = place.querySelector(".lk-lens"), said = place.querySelector(".lk-said");
    const draw = () => {
      for (const button of place.querySelectorAll("[data-measure]")) button.setAttribute("aria-pressed", String(button.dataset.measure === measure));
      table.innerHTML = `<table class="lk-table"><thead><tr><th scope="col">${esc(t("look.layers"))}</th>${tokens.map((one, i) => `<th scope="col"${i === at ? ' class="lk-now"' : ""}><button type="button" data-at="${i}" aria-pressed="${i === at}" title="${esc(t("look.token", { n: i + 1, text: seen(one) }))}">${esc(seen(one))}</button></th>`).join("")}</tr></thead>
        <tbody>${layers.map((layer, n) => [layer, n]).reverse().map(([layer, n]) => `<tr><th scope="row">${esc(name(n))}</th>${tokens.map((_, i) => `<td style="--v:${Math.round(100 * Math.min(1, Math.max(0, value(layer, i) ?? 0)))}%" class="${[n >= positions[i].settled ? "lk-settled" : "", i === at ? "lk-now" : ""].join(" ").trim()}" title="${esc(hint(layer, i))}">${esc(told(layer, i))}</td>`).join("")}</tr>`).join("")}</tbody></table>`;
    };
    const lines = () => [["final", "--st-accent"], ["next", "--st-c1"]].filter(([key]) => isNumber(layers[0][key][at])).map(([key, hue]) => ({ x: layers.map((_, n) => n), y: layers.map((layer) => layer[key][at]), name: t(`look.measure.${key}`), mode: "lines+markers", line: { color: studio.token(hue), width: 2 }, hovertemplate: "%{y:.3f}<extra>%{fullData.name}</extra>" }))
      .concat({ x: layers.map((_, n) => n), y: layers.map((layer) => layer.entropy[at]), name: t("look.measure.entropy"), yaxis: "y2", mode: "lines", line: { color: studio.token("--st-c3"), width: 2, dash: "dot" }, hovertemplate: "%{y:.2f}<extra>%{fullData.name}</extra>" });
    draw();
    const way = plot(place.querySelector("[data-plot=way]"), lines, { legend: true, margin: { t: 30, r: 60 }, x: { title: t("look.layers"), dtick: Math.max(1, Math.round(layers.length / 16)) }, y: { title: t("look.probability"), range: [0, 1.02] }, y2: { title: t("look.measure.entropy"), rangemode: "tozero" } });
    const tell = () => { said.textContent = t("look.lens.settled", { token: seen(tokens[at]), final: seen(positions[at].final), layer: name(positions[at].settled) }); way(); };
    tell();
    place.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button?.dataset.measure) { measure = button.dataset.measure; draw(); }
      if (button?.dataset.at) { at = Number(button.dataset.at); const left = table.scrollLeft; draw(); table.scrollLeft = left; tell(); table.querySelector(`[data-at="${at}"]`).focus({ preventScroll: true }); }
    });
  });

  // ---- attention: all heads small, one of them large

  studio.evalPanel("look/attention", (place, { results }) => {
    const { tokens = [], layers = [] } = results.facts, size = tokens.length;
    if (!layers.length) return;
    const cells = layers.map((layer) => Uint8Array.from(atob(layer.maps), (c) => c.charCodeAt(0)));
    const of = (l, h) => cells[l].subarray(h * size * size, (h + 1) * size * size);
    let [l, h] = [layers.length - 1, 0];
    place.className = "pb";
    const stats = (layer, head) => t("look.head.stats", { entropy: layer.entropy[head].toFixed(2), first: percent(layer.first[head]), previous: percent(layer.previous[head]), itself: percent(layer.itself[head]) });
    place.innerHTML = part(t("look.heads"), t("look.heads.about"), `<div class="lk-heads">${layers.map((layer, n) => `<div class="lk-row"><b>${esc(t("look.layer", { n: layer.layer + 1 }))}</b><div>${Array.from({ length: layer.heads }, (_, i) => `<button type="button" class="lk-head" data-l="${n}" data-h="${i}" title="${esc(stats(layer, i))}" aria-label="${esc(t("look.head", { layer: layer.layer + 1, head: i + 1 }))}. ${esc(stats(layer, i))}"><canvas width="${size}" height="${size}"></canvas><small>${esc(percent(layer.first[i]))}</small></button>`).join("")}</div></div>`).join("")}</div>`)
      + part(t("look.head.one"), "", `<p class="lk-said" role="status"></p><div class="lk-wide"><div class="lk-plot" data-plot="head"></div></div>`);
    const paint = () => {
      const [r, g, b] = [1, 3, 5].map((i) => parseInt(studio.token("--st-accent").slice(i, i + 2), 16));
      for (const button of place.querySelectorAll(".lk-head")) {
        const context = button.querySelector("canvas").getContext("2d"), image = context.createImageData(size, size);
        of(Number(button.dataset.l), Number(button.dataset.h)).forEach((v, i) => image.data.set([r, g, b, Math.round(255 * Math.sqrt(v / 255))], 4 * i));
        context.putImageData(image, 0, 0);
      }
    };
    studio.evalRedraw(place.firstElementChild, paint);
    const element = place.querySelector("[data-plot=head]"), side = Math.max(360, Math.min(900, 22 * size + 120));
    const map = () => { const own = of(l, h), rows = tokens.map((_, i) => Array.from(own.subarray(i * size, i * size + i + 1), (v) => v / 255)); return [{ type: "heatmap", z: rows.map((row) => [...row, ...Array(size - row.length).fill(null)]), colorscale: studio.look.shades(), zmin: 0, zmax: 1, showscale: false, xgap: 1, ygap: 1,
      hovertext: rows.map((row, i) => tokens.map((one, j) => `${esc(seen(tokens[i]))} → ${esc(seen(one))}<br>${percent(row[j])}`)), hoverinfo: "text" }]; };
    element.style.minWidth = `${side}px`;
    const one = plot(element, map, { margin: { l: 110, b: 90 }, x: { ...marks(tokens), tickangle: -60, title: t("look.head.to") }, y: { ...marks(tokens), autorange: "reversed", title: t("look.head.from") } }, side);
    const choose = () => {
      for (const button of place.querySelectorAll(".lk-head")) button.setAttribute("aria-pressed", String(Number(button.dataset.l) === l && Number(button.dataset.h) === h));
      place.querySelector(".lk-said").textContent = `${t("look.head", { layer: layers[l].layer + 1, head: h + 1 })}. ${stats(layers[l], h)}`;
      one();
    };
    choose();
    place.addEventListener("click", (event) => { const button = event.target.closest(".lk-head"); if (button) { [l, h] = [Number(button.dataset.l), Number(button.dataset.h)]; choose(); } });
  });
})();
