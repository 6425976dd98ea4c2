/* Variants of a model against each other: the plot with its front, the list below it, and everything about one of them. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const AXES = {
    size: { of: (v) => v.size, text: studio.bytes, source: (s) => s.size },
    perplexity: { of: (v) => v.proof?.perplexity?.variant, source: (s, all) => all.map((v) => v.proof?.perplexity?.source).find((n) => n != null) },
    kl: { of: (v) => v.proof?.kl, source: (s, all) => (all.some((v) => v.proof?.kl != null) ? 0 : null) },
    top1: { of: (v) => v.proof?.top1, more: true, text: (n) => `${(100 * n).toFixed(1)} %`, source: (s, all) => (all.some((v) => v.proof?.top1 != null) ? 1 : null) },
    tokens_per_second: { of: (v) => v.proof?.tokens_per_second, more: true },
    memory: { of: (v) => v.proof?.memory, text: studio.bytes },
  };
  const VERDICTS = { same: "--st-good", close: "--st-accent", worse: "--st-warn", broken: "--st-bad" };
  const SHAPES = { gguf: "circle", bitsandbytes: "square", "compressed-tensors": "diamond", hqq: "triangle-up", exl3: "pentagon" };
  const say = (axis, n) => (AXES[axis].text || ((v) => studio.num(v, 4)))(n);
  const isNumber = (n) => typeof n === "number" && isFinite(n);
  const COLUMNS = 4; // of the chat

  /** What a person calls a variant: "Q4_K_M". */
  const word = (v) => v.quantization || v.name || v.label;
  studio.variantName = word;

  /** The verdict of a proof as a mark with its word. */
  studio.verdict = (proof) => {
    const name = proof?.verdict;
    return name ? `<span class="qz-verdict qz-is-${esc(name)}"><i aria-hidden="true"></i>${esc(t(`quantize.verdict.${name}`))}</span>` : `<span class="st-muted">${esc(t("quantize.verdict.none"))}</span>`;
  };

  class Pareto {
    /** found: {source, variants}; pick(variant) is called for a point that is clicked. */
    constructor(place, found, pick) {
      Object.assign(this, { place, found, pick, x: "size", y: "perplexity" });
      place.classList.add("qz-pareto");
      const select = (which) => `<label>${esc(t(`quantize.axis.${which}`))} <select data-axis="${which}">${Object.keys(AXES).map((k) => `<option value="${k}" ${k === this[which] ? "selected" : ""}>${esc(t(`quantize.by.${k}`))}</option>`).join("")}</select></label>`;
      place.innerHTML = `<div class="st-chart-tools">${select("y")}${select("x")}</div><div class="qz-plot" role="img"></div><p class="qz-front st-muted" role="status"></p>`;
      place.querySelector(".st-chart-tools").onchange = (event) => { this[event.target.dataset.axis] = event.target.value; this.draw(); };
      const repaint = () => (place.isConnected ? this.draw() : window.removeEventListener("studio:theme", repaint));
      window.addEventListener("studio:theme", repaint);
      this.draw();
    }

    /** Those that no other beats on both axes. */
    front(points) {
      const better = (axis, a, b) => (AXES[axis].more ? a > b : a < b), as = (axis, a, b) => a === b || better(axis, a, b);
      return points.filter((p) => !points.some((q) => q !== p && as(this.x, q.x, p.x) && as(this.y, q.y, p.y) && (better(this.x, q.x, p.x) || better(this.y, q.y, p.y)))).sort((a, b) => a.x - b.x);
    }

    draw() {
      const { found, x, y } = this, plot = this.place.querySelector(".qz-plot"), told = this.place.querySelector(".qz-front");
      const points = found.variants.map((v) => ({ v, x: AXES[x].of(v), y: AXES[y].of(v) })).filter((p) => isNumber(p.x) && isNumber(p.y) && p.v.proof?.verdict !== "broken");
      this.points = points;
      if (!points.length) {
        plot.dataset.empty = ""; plot.textContent = t("quantize.plot.empty"); told.textContent = "";
        return;
      }
      if ("empty" in plot.dataset) { delete plot.dataset.empty; plot.textContent = ""; }
      const front = this.front(points), ink = studio.token("--st-muted"), grid = studio.token("--st-line"), on = new Set(front);
      const hover = (p) => `<b>${esc(word(p.v))}</b><br>${esc(t(`quantize.by.${x}`))}: ${esc(say(x, p.x))}<br>${esc(t(`quantize.by.${y}`))}: ${esc(say(y, p.y))}`;
      const order = [...points].sort((a, b) => a.x - b.x), side = new Map(order.map((p, i) => [p, i % 2 ? "bottom center" : "top center"]));
      const traces = [{ x: front.map((p) => p.x), y: front.map((p) => p.y), mode: "lines", line: { color: studio.token("--st-accent"), width: 1.6, dash: "dot" }, hoverinfo: "skip", name: "front" }, {
        x: points.map((p) => p.x), y: points.map((p) => p.y), mode: "markers+text", text: points.map((p) => word(p.v)), textposition: points.map((p) => side.get(p)), cliponaxis: false,
        textfont: { size: 11, color: points.map((p) => studio.token(on.has(p) ? "--st-ink" : "--st-muted")) }, hovertext: points.map(hover), hoverinfo: "text", name: "variants",
        marker: { size: points.map((p) => (on.has(p) ? 12 : 9)), symbol: points.map((p) => SHAPES[p.v.format] || "circle"), color: points.map((p) => studio.token(VERDICTS[p.v.proof?.verdict] || "--st-faint")), opacity: points.map((p) => (on.has(p) ? 1 : 0.6)), line: { width: 1.5, color: studio.token("--st-surface") } },
      }];
      const sx = AXES[x].source?.(found.source || {}, found.variants), sy = AXES[y].source?.(found.source || {}, found.variants);
      if (isNumber(sx) && isNumber(sy)) traces.push({ x: [sx], y: [sy], mode: "markers+text", text: [found.source.label], textposition: "top center", textfont: { size: 11, color: ink }, cliponaxis: false, hovertext: [hover({ v: { quantization: found.source.label }, x: sx, y: sy })], hoverinfo: "text", marker: { size: 11, symbol: "x-thin-open", color: ink, line: { width: 2, color: ink } }, name: "source" });
      const axis = (name) => ({ title: { text: t(`quantize.by.${name}`), font: { size: 11.5, color: ink }, standoff: 8 }, gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { size: 10.5, color: ink }, fixedrange: true, nticks: 6,
        ...(name === "size" || name === "memory" ? this.bytes(name === x ? "x" : "y", traces) : name === "top1" ? { tickformat: ".0%" } : {}) });
      const layout = { margin: { l: 76, r: 34, t: 22, b: 46 }, height: 300, autosize: true, showlegend: false, hovermode: "closest", dragmode: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: studio.token("--st-font"), size: 11, color: ink },
        hoverlabel: { bgcolor: studio.token("--st-surface"), bordercolor: grid, font: { color: studio.token("--st-ink"), size: 11.5 } }, xaxis: axis(x), yaxis: axis(y) };
      const sources = new Set(found.variants.map((v) => v.proof?.perplexity?.source).filter(isNumber).map((n) => n.toFixed(3)));
      told.textContent = `${t("quantize.front", { names: front.map((p) => word(p.v)).join(", ") })}${[x, y].includes("perplexity") && sources.size > 1 ? ` ${t("quantize.other_texts")}` : ""}`;
      plot.setAttribute("aria-label", `${t("quantize.plot.label", { n: points.length, x: t(`quantize.by.${x}`), y: t(`quantize.by.${y}`) })} ${told.textContent}`);
      this.drawn = (this.drawn || Promise.resolve()).then(async () => {
        const P = await studio.plotly();
        if (!plot.isConnected || !plot.getClientRects().length) return;
        await P.react(plot, traces, layout, { displayModeBar: false, responsive: true });
        if (!this.bound) { this.bound = true; plot.on("plotly_click", (event) => { const p = event.points.find((one) => one.curveNumber === 1); if (p) this.pick(this.points[p.pointIndex ?? p.pointNumber].v); }); }
      }).catch((error) => { plot.textContent = error.message; });
    }

    /** Ticks of an axis of bytes at round figures. */
    bytes(which, traces) {
      const all = traces.flatMap((trace) => trace[which]), high = Math.max(...all), step = [1, 2, 2.5, 5, 10].map((n) => n * 10 ** Math.floor(Math.log10(high / 5))).find((n) => high / n <= 6) || high;
      const ticks = Array.from({ length: Math.floor(high / step) + 1 }, (_, i) => i * step);
      return { tickmode: "array", tickvals: ticks, ticktext: ticks.map(studio.bytes), rangemode: "tozero" };
    }
  }
  studio.Pareto = Pareto;

  /* Variants in the library, to pick some of for a chat or a repository. */
  class VariantList {
    constructor(place, found) {
      Object.assign(this, { place, found });
      const cell = (v, axis) => { const n = AXES[axis].of(v); return `<td class="st-num">${isNumber(n) ? esc(say(axis, n)) : "–"}</td>`; };
      place.innerHTML = `<div class="qz-scroll" tabindex="0" role="region" aria-label="${esc(t("quantize.made"))}"><table class="st-table qz-list"><thead><tr><th></th><th scope="col">${esc(t("quantize.variant"))}</th>${["size", "perplexity", "kl"].map((k) => `<th scope="col" class="st-num">${esc(t(`quantize.by.${k}`))}</th>`).join("")}<th scope="col">${esc(t("quantize.proof"))}</th></tr></thead><tbody>
        ${found.variants.map((v, i) => `<tr data-at="${i}"><td><input type="checkbox" aria-label="${esc(t("quantize.pick", { name: v.label }))}"></td><th scope="row"><button type="button" class="st-link" data-open title="${esc(v.label)}">${esc(word(v))}</button><small>${esc([studio.bits(v.bits), v.format].filter(Boolean).join(" · "))}</small></th>${["size", "perplexity", "kl"].map((k) => cell(v, k)).join("")}<td>${studio.verdict(v.proof)}</td></tr>`).join("")}</tbody></table></div>
        <div class="st-actions"><button type="button" class="st-btn st-small" data-chat></button><button type="button" class="st-btn st-small" data-push></button></div>`;
      place.onchange = () => this.told();
      place.onclick = (event) => {
        const at = event.target.closest("[data-at]")?.dataset.at;
        if (event.target.closest("[data-open]")) return studio.variant(found.variants[at], found.source);
        if (event.target.closest("[data-chat]")) studio.open("chat", { models: [found.source.ref, ...this.picked().map((v) => v.ref)].slice(0, COLUMNS) });
        if (event.target.closest("[data-push]")) studio.pushVariants(this.picked(), found.source);
      };
      this.told();
    }

    picked() {
      const chosen = [...this.place.querySelectorAll("tr[data-at]")].filter((row) => row.querySelector("input").checked).map((row) => this.found.variants[row.dataset.at]);
      return chosen.length ? chosen : this.found.variants;
    }

    told() {
      const n = this.picked().length;
      this.place.querySelector("[data-chat]").textContent = t(n === 1 ? "quantize.chat.one" : "quantize.chat.with", { n: Math.min(n, COLUMNS - 1) });
      this.place.querySelector("[data-push]").textContent = t(n === 1 ? "quantize.push.one" : "quantize.push.n", { n });
    }
  }
  studio.VariantList = VariantList;

  /** Two texts, what differs marked: [html of the one, html of the other]. */
  studio.differ = (a, b) => {
    const one = String(a ?? "").match(/\s+|[^\s]+/g)?.slice(0, 600) || [], two = String(b ?? "").match(/\s+|[^\s]+/g)?.slice(0, 600) || [];
    const n = one.length, m = two.length, best = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
    for (let i = n - 1; i >= 0; i--) for (let j = m - 1; j >= 0; j--) best[i][j] = one[i] === two[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
    const out = [[], []];
    const put = (side, text, same) => { const last = out[side].at(-1); if (last && last.same === same) last.text += text; else out[side].push({ text, same }); };
    for (let i = 0, j = 0; i < n || j < m;) {
      if (i < n && j < m && one[i] === two[j]) { put(0, one[i++], true); put(1, two[j++], true); }
      else if (j >= m || (i < n && best[i + 1][j] >= best[i][j + 1])) put(0, one[i++], false);
      else put(1, two[j++], false);
    }
    return out.map((parts) => parts.map(({ text, same }) => (same || !text.trim() ? esc(text) : `<mark class="qz-differs">${esc(text)}</mark>`)).join("") || `<em>${esc(t("samples.nothing"))}</em>`);
  };

  /** Answers side by side: those that differ in sight, the others to be opened. */
  const answers = (rows, source) => {
    const pair = (row) => { const [a, b] = studio.differ(row.source, row.variant); return `<section><h4>${esc(row.prompt)}</h4><div class="qz-pair"><p><span class="st-visually-hidden">${esc(source || "")}: </span>${a}</p><p>${b}</p></div></section>`; };
    const other = rows.filter((row) => row.source !== row.variant), same = rows.filter((row) => row.source === row.variant);
    const head = `<div class="qz-answers-head" aria-hidden="true"><b>${esc(source || t("quantize.source"))}</b><b>${esc(t("quantize.variant"))}</b></div>`;
    return `<div class="qz-answers">${other.length ? `${head}${other.map(pair).join("")}` : ""}${same.length ? `<details ${other.length ? "" : "open"}><summary>${esc(t("quantize.answers.same", { n: same.length }))}</summary>${same.map((row) => `<section><h4>${esc(row.prompt)}</h4><div class="qz-pair qz-one"><p>${esc(row.source) || `<em>${esc(t("samples.nothing"))}</em>`}</p></div></section>`).join("")}</details>` : ""}</div>`;
  };

  /** What a proof says: reasons, ticks, answers side by side. */
  studio.proofHtml = (proof, source) => {
    if (!proof) return `<p class="st-muted">${esc(t("quantize.proof.none"))}</p>`;
    const tick = (fine, key, more = "") => `<li class="${fine ? "qz-yes" : fine === false ? "qz-no" : "qz-unknown"}"><i aria-hidden="true">${fine ? "✓" : fine === false ? "✗" : key === "greedy" ? "≈" : "?"}</i>${esc(t(`quantize.check.${key}`))}<span class="st-visually-hidden">: ${esc(t(fine ? "quantize.yes" : fine === false ? "quantize.no" : key === "greedy" ? "quantize.partly" : "quantize.unknown"))}</span>${more ? `<small>${esc(more)}</small>` : ""}</li>`;
    const { template = {}, tokens = {}, end = {}, greedy = {} } = proof, rows = greedy.rows || [];
    return `${(proof.reasons || []).map((reason) => `<p class="qz-reason">${esc(reason)}</p>`).join("")}
      <ul class="qz-checks">${tick(template.same, "template", template.same === false ? template.first_difference : "")}${tick(tokens.same, "tokens")}${tick(end.variant == null ? null : end.variant || end.variant === end.source, "end", end.source === false ? t("quantize.check.end.source") : "")}
      ${greedy.of ? tick(greedy.same === greedy.of || (greedy.same > 0 ? null : false), "greedy", t("quantize.check.greedy.n", { n: greedy.same, of: greedy.of })) : ""}</ul>
      ${rows.length ? answers(rows, source) : ""}`;
  };

  /** Everything about one variant, and what can be done with it. */
  studio.variant = async (v, source) => {
    const { proof = {} } = v, tile = (key, text) => `<div><dt>${esc(t(`quantize.by.${key}`))}</dt><dd>${esc(text)}</dd></div>`;
    const facts = Object.keys(AXES).map((k) => [k, AXES[k].of(v)]).filter(([, n]) => isNumber(n)).map(([k, n]) => tile(k, say(k, n))).join("");
    const done = studio.ask(v.label || word(v), `<p>${studio.verdict(v.proof)} <span class="st-muted">${esc([v.format, studio.bits(v.bits), proof?.runtime && t("quantize.runtime", { name: proof.runtime })].filter(Boolean).join(" · "))}</span></p>
      <dl class="st-tiles">${facts}</dl>${studio.proofHtml(v.proof, source?.label)}
      <div class="st-actions">${["chat", "against", "export", "files", "push", "run"].filter((act) => v.ref && (act !== "run" || v.run)).map((act) => `<button type="button" class="st-btn st-small" data-do="${act}">${esc(t(`quantize.do.${act}`))}</button>`).join("")}</div>`);
    const dialog = [...document.querySelectorAll("dialog.st-dialog")].at(-1);
    dialog.classList.add("qz-wide");
    dialog.addEventListener("click", (event) => {
      const act = event.target.dataset?.do;
      if (!act) return;
      dialog.close();
      studio.variantDo(act, v, source);
    });
    await done;
  };

  studio.variantDo = (act, v, source) => {
    if (act === "chat") studio.open("chat", { models: [source?.ref, v.ref].filter(Boolean) });
    if (act === "against") studio.evalAgainst(v.ref, source?.ref ? [source.ref] : null);
    if (act === "export") studio.exportModel(v.ref, v.label);
    if (act === "files") studio.downloadModel(v.id, v.label);
    if (act === "push") studio.pushVariants([v], source);
    if (act === "run") studio.openRun(v.run);
  };
})();
