/* What changed in the recipe and what changed in the score: a table over any runs, and pairs that differ in one setting. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const COST = ["seconds", "tokens_per_second"];
  const isNumber = (v) => typeof v === "number" && isFinite(v);
  const text = (v) => (v === null || v === undefined ? "–" : typeof v === "boolean" ? t(v ? "is.on" : "is.off") : typeof v === "object" ? (v.length === 0 ? "–" : JSON.stringify(v)) : v === "" ? "–" : String(v));
  const how = (score) => ({ low: score.low_bound, high: score.high_bound });
  const title = (score) => [score.title, score.task ? score.metric : t(`is.own.${score.metric}`)].filter(Boolean).join(" · ");

  /** A difference with its interval, coloured where it is sure. */
  studio.insightChange = (one, metric) => {
    if (!one || !isNumber(one.delta)) return "";
    const points = (v) => (metric.low === 0 && metric.high === 1 ? (100 * Math.abs(v)).toFixed(1) : studio.num(Math.abs(v), 3)), signed = (v) => `${v > 0 ? "+" : v < 0 ? "−" : "±"}${points(v)}`;
    const tone = one.sure ? (one.worse ? "ev-worse" : "ev-better") : "ev-even", range = isNumber(one.low) ? ` <small>(${esc(signed(one.low))} … ${esc(signed(one.high))})</small>` : "";
    return `<span class="ev-change ${tone}"><span>${esc(signed(one.delta))}${range}</span></span>`;
  };

  class Ablation {
    constructor(place) {
      Object.assign(this, { place, runs: [] });
      place.innerHTML = `<div class="is-ablation"><div class="is-lead"><p class="st-muted">${esc(t("is.ablation.lead"))}</p><button type="button" class="st-btn st-small" data-choose>${esc(t("is.ablation.choose"))}</button></div><div data-table></div></div>`;
      place.addEventListener("click", (event) => {
        const { choose, run } = event.target.closest("button")?.dataset || {};
        if (choose !== undefined) this.choose();
        if (run) studio.openRun(run);
      });
    }

    async choose() {
      const answer = await studio.insight.ask(t("is.ablation.choose"), t("is.ablation.none.hint"), t("is.compare.ablation"), { parts: ["making", "sweep", "evaluation"], held: this.runs });
      if (answer) await this.show(answer.runs);
    }

    async show(runs) {
      this.runs = runs;
      studio.evalAddress({ mode: "ablation", runs: runs.join(",") });
      const place = this.place.querySelector("[data-table]");
      if (!runs.length) return void (place.innerHTML = `<div class="st-empty"><b>${esc(t("is.ablation.none"))}</b><p>${esc(t("is.ablation.none.hint"))}</p><button type="button" class="st-btn st-primary" data-choose>${esc(t("is.ablation.choose"))}</button></div>`);
      place.setAttribute("aria-busy", "true");
      try { this.draw(place, await studio.call("ablation", { runs })); }
      catch (error) { place.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`; }
      finally { place.removeAttribute("aria-busy"); }
    }

    draw(place, { entries, fields, scores, effects }) {
      const names = entries.map((entry, i) => `<th scope="col"><button type="button" class="st-link" data-run="${esc(entry.run)}">${esc(entry.label)}</button><small>${esc(i ? studio.methodOf(entry.kind, entry.method).title : t("is.ablation.first"))}</small></th>`).join("");
      const setting = (field) => `<tr><th scope="row"><b>${esc(field.title)}</b><small>${esc(field.name)}</small></th>${field.values.map((value, i) => `<td class="${i && JSON.stringify(value) !== JSON.stringify(field.values[0]) ? "is-changed" : ""}">${esc(text(value))}</td>`).join("")}</tr>`;
      const score = (one) => `<tr><th scope="row"><b>${esc(title(one))}</b><small>${esc(one.task ? "" : t("is.ablation.own"))}${one.higher_is_better ? "" : " ↓"}</small></th>${one.values.map((value, i) => (value ? `<td class="ev-cell${one.best === i ? " ev-best" : ""}"><span class="ev-value">${esc(one.metric === "seconds" ? studio.duration(value.value) : studio.evalNumber(value.value, how(one)))}${isNumber(value.stderr) ? `<small> ± ${esc(studio.num(one.high_bound === 1 ? 100 * value.stderr : value.stderr, 2))}</small>` : ""}</span>${i && !COST.includes(one.metric) ? studio.insightChange(value, how(one)) : ""}</td>` : `<td><span class="st-muted">${esc(t("is.ablation.missing"))}</span></td>`)).join("")}</tr>`;
      const part = (key) => `<tr class="is-part"><th scope="rowgroup" colspan="${entries.length + 1}">${esc(t(key))}</th></tr>`;
      const effect = (one) => `<tr><th scope="row"><b>${esc(one.title)}</b><small>${esc(entries[one.a].label)} → ${esc(entries[one.b].label)}</small></th><td>${esc(t("is.ablation.from_to", { a: text(one.from), b: text(one.to) }))}</td>${shown.map((s) => { const found = one.scores.find((each) => each.task === s.task && each.metric === s.metric); return `<td class="ev-cell">${found ? studio.insightChange(found, how(s)) : "–"}</td>`; }).join("")}</tr>`;
      const shown = scores.filter((s) => s.task || !COST.includes(s.metric));
      place.innerHTML = `<div class="ev-scroll" tabindex="0" role="region" aria-label="${esc(t("is.compare.ablation"))}"><table class="st-table ev-table is-table"><thead><tr><th></th>${names}</tr></thead><tbody>${part("is.ablation.setting")}${fields.map(setting).join("") || `<tr><td colspan="${entries.length + 1}" class="st-muted">${esc(t("is.ablation.same"))}</td></tr>`}${part("is.ablation.score")}${scores.map(score).join("") || `<tr><td colspan="${entries.length + 1}" class="st-muted">${esc(t("is.ablation.no_scores"))}</td></tr>`}</tbody></table></div>
        ${effects.length && shown.length ? `<h2>${esc(t("is.ablation.effects"))}</h2><p class="st-muted">${esc(t("is.ablation.effects.about"))}</p><div class="ev-scroll" tabindex="0" role="region" aria-label="${esc(t("is.ablation.effects"))}"><table class="st-table ev-table is-table"><thead><tr><th scope="col">${esc(t("is.ablation.setting"))}</th><th></th>${shown.map((s) => `<th scope="col">${esc(title(s))}${s.higher_is_better ? "" : " ↓"}</th>`).join("")}</tr></thead><tbody>${effects.map(effect).join("")}</tbody></table></div>` : ""}`;
    }
  }
  studio.Ablation = Ablation;
})();
