/* Look inside: the panels of a removed direction and of a loss landscape. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t, { part, bars, legend, hue, percent, isNumber } = studio.probes, { plot } = studio.look;

  studio.evalPanel("look/abliterate", (place, { run, results }) => {
    const { candidates = [], before, after, layer, behaviour, sign, prompts, matrices, threshold } = results.facts;
    if (!before) return;
    const made = (run.artifacts || []).find((one) => one.kind === "model"), sides = [["before", before], ["after", after]];
    const number = (one) => `${studio.num(one.perplexity, 4)}${isNumber(one.perplexity_stderr) ? ` ± ${studio.num(one.perplexity_stderr, 2)}` : ""}`;
    place.className = "pb";
    place.innerHTML = part(t("look.direction"), t(behaviour === "refusal" ? "look.direction.refusal" : "look.direction.own", { sign }),
      `<ul class="st-findings"><li class="st-finding st-level-${behaviour === "refusal" ? "warning" : "info"}"><b>${esc(t(behaviour === "refusal" ? "look.direction.unsafe" : "look.direction.other"))}</b></li></ul>
       ${legend(sides.map(([when]) => t(`look.${when}`)))}${bars(t("look.direction"), ["with", "without"].map((list) => ({ label: t(`look.list.${list}`), bars: sides.map(([when, one], n) => ({ ...one[list], label: t(`look.${when}`), hue: hue(n) })) })))}
       <p class="lk-said">${esc(t("look.direction.perplexity", { before: number(before), after: number(after) }))} ${esc(t("look.direction.facts", { layer, matrices, n: prompts.with.learned + prompts.without.learned }))}</p>
       ${made ? `<p class="st-actions"><button type="button" class="st-btn" data-against>${esc(t("look.direction.against"))}</button><button type="button" class="st-btn" data-chat>${esc(t("look.direction.chat"))}</button></p>` : ""}`)
      + part(t("look.candidates"), t("look.candidates.about", { threshold: studio.num(threshold) }), `<div class="lk-plot" data-plot="layers"></div>`)
      + part(t("look.examples"), "", `<div class="pb-scroll" tabindex="0" role="region" aria-label="${esc(t("look.examples"))}"><table class="st-table lk-examples"><thead><tr><th scope="col">${esc(t("look.prompt"))}</th><th scope="col">${esc(t("look.before"))}</th><th scope="col">${esc(t("look.after"))}</th></tr></thead><tbody>${before.examples.map((one, i) => `<tr><th scope="row">${esc(one.prompt)}</th>${[one, after.examples[i]].map((own) => `<td class="${own?.shown ? "lk-shown" : ""}">${esc(own?.answer || "–")}</td>`).join("")}</tr>`).join("")}</tbody></table></div>`);
    const x = candidates.map((one) => one.layer);
    plot(place.querySelector("[data-plot=layers]"), () => [
      { x, y: candidates.map((one) => one.rate.value), name: t("look.candidates.rate"), mode: "lines+markers", line: { color: studio.token("--st-accent"), width: 2 }, marker: { size: x.map((one) => (one === layer ? 13 : 7)) }, error_y: { type: "data", symmetric: false, array: candidates.map((one) => one.rate.high - one.rate.value), arrayminus: candidates.map((one) => one.rate.value - one.rate.low), thickness: 1.2, width: 3, color: studio.token("--st-accent") }, hovertext: candidates.map((one) => `${percent(one.rate.value)} (${one.rate.k}/${one.rate.n})`), hoverinfo: "text" },
      { x, y: candidates.map((one) => one.kl), name: t("look.candidates.kl"), yaxis: "y2", mode: "lines+markers", line: { color: studio.token("--st-c3"), width: 2, dash: "dot" }, hovertemplate: "%{y:.3f}<extra></extra>" }],
    { legend: true, margin: { t: 30, r: 60 }, x: { title: t("look.layers"), dtick: Math.max(1, Math.round(Math.max(...x) / 12)) }, y: { title: t("look.candidates.rate"), range: [-0.03, 1.05] }, y2: { title: t("look.candidates.kl"), rangemode: "tozero" } });
    place.querySelector("[data-against]")?.addEventListener("click", () => studio.evalAgainst(`library:${made.id}`));
    place.querySelector("[data-chat]")?.addEventListener("click", () => studio.open("chat", { models: [run.recipe.model, `library:${made.id}`] }));
  });

  studio.evalPanel("look/landscape", (place, { results }) => {
    const { steps = [], loss = [], plain, lowest, highest, rows } = results.facts;
    if (!steps.length) return;
    const middle = (steps.length - 1) / 2;
    place.className = "pb";
    place.innerHTML = part(t("look.landscape"), t("look.landscape.about", { rows }), `<p class="lk-said">${esc(t("look.landscape.facts", { plain: studio.num(plain, 4), lowest: studio.num(lowest, 4), highest: studio.num(highest, 4) }))}</p><div class="lk-two"><div class="lk-plot" data-plot="plane"></div><div class="lk-plot" data-plot="cut"></div></div>`);
    plot(place.querySelector("[data-plot=plane]"), () => [{ type: "contour", x: steps, y: steps, z: loss, colorscale: [[0, studio.token("--st-accent")], [1, studio.token("--st-surface")]], contours: { coloring: "heatmap", showlabels: true, labelfont: { size: 10, color: studio.token("--st-ink") } }, ncontours: 16, line: { color: studio.token("--st-muted"), width: 0.8 }, colorbar: { thickness: 10, outlinewidth: 0, tickfont: { size: 10 } }, hovertemplate: "%{x:.2f}, %{y:.2f}: %{z:.4f}<extra></extra>" },
      { x: [0], y: [0], mode: "markers", marker: { symbol: "x", size: 10, color: studio.token("--st-ink") }, hoverinfo: "skip" }], { x: { title: t("look.landscape.second") }, y: { title: t("look.landscape.first") } }, 420);
    plot(place.querySelector("[data-plot=cut]"), () => [["first", loss.map((row) => row[middle]), "--st-accent"], ["second", loss[middle], "--st-c1"]].map(([way, y, color]) => ({ x: steps, y, name: t(`look.landscape.${way}`), mode: "lines+markers", line: { color: studio.token(color), width: 2 }, hovertemplate: "%{x:.2f}: %{y:.4f}<extra>%{fullData.name}</extra>" })), { legend: true, margin: { t: 30 }, x: { title: t("look.landscape.step") }, y: { title: t("look.landscape.loss") } }, 420);
  });
})();
