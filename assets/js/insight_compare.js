/* Base against tuned: two models on the same questions, what got worse in red, the answers that changed; and ablations. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const isNumber = (v) => typeof v === "number" && isFinite(v), SHOWN = 8;

  class Compare {
    constructor(place) {
      Object.assign(this, { place, mode: "two", a: "", b: "", all: false, task: "", kind: "worse", shown: SHOWN, asked: 0 });
      place.innerHTML = `<div class="is is-page"><header class="ev-part-head"><h1>${esc(t("eval.view.compare"))}</h1><div class="ev-switch" role="group" aria-label="${esc(t("eval.view.compare"))}">${["two", "ablation"].map((mode) => `<button type="button" data-mode="${mode}">${esc(t(`is.compare.${mode}`))}</button>`).join("")}</div><div class="ev-tools" data-two><button type="button" class="st-btn st-small" data-act="analyse">${esc(t("is.compare.analyse"))}</button><button type="button" class="st-btn st-small" data-act="report">${esc(t("is.compare.report"))}</button></div></header>
        <div data-two class="is-sides"><label>${esc(t("is.compare.base"))}<select data-side="a"></select></label><button type="button" class="st-icon" data-act="swap" aria-label="${esc(t("is.compare.swap"))}" title="${esc(t("is.compare.swap"))}">⇄</button><label>${esc(t("is.compare.tuned"))}<select data-side="b"></select></label></div>
        <div data-two data-pairs></div><div data-ablation hidden></div></div>`;
      this.$ = (selector) => place.querySelector(selector);
      this.ablation = new studio.Ablation(this.$("[data-ablation]"));
      studio.poll(place, 3000, () => this.runs || this.busy || !this.wanted || this.show(this.wanted));  // a server that was busy at first is asked again
      place.addEventListener("click", (event) => this.click(event));
      place.addEventListener("change", (event) => {
        const { side, tasks } = event.target.dataset;
        if (side) { this[side] = event.target.value; this.load(); }
        if (tasks !== undefined) { this.task = event.target.value; this.shown = SHOWN; this.flips(); }
      });
    }

    async show(wanted = {}) {
      const { mode = "", a = "", b = "", runs = "" } = (this.wanted = wanted);
      if (mode || runs) this.mode = mode === "ablation" || runs ? "ablation" : "two"; else if (a || b) this.mode = "two";
      this.busy = true;
      try { this.runs = (await studio.insight.list()).filter((run) => run.part === "evaluation"); } finally { this.busy = false; }
      const all = this.runs.flatMap((run) => run.models.map((model) => `${run.id}/${model.ref}`)), fits = (key) => (all.includes(key) ? key : "");
      const two = this.runs.find((run) => run.models.length > 1);
      this.a = fits(a) || fits(this.a) || (two ? `${two.id}/${two.models[0].ref}` : all[1] || "");
      this.b = fits(b) || fits(this.b) || (two ? `${two.id}/${two.models[1].ref}` : all[0] || "");
      this.draw();
      if (this.mode === "ablation") await this.ablation.show(runs ? runs.split(",") : this.ablation.runs); else await this.load();
    }

    draw() {
      for (const button of this.place.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === this.mode);
      for (const part of this.place.querySelectorAll("[data-two]")) part.hidden = this.mode !== "two";
      this.$("[data-ablation]").hidden = this.mode !== "ablation";
      const options = (held) => this.runs.map((run) => `<optgroup label="${esc(run.label)} · ${esc(studio.ago(run.ended))}">${run.models.map((model) => { const key = `${run.id}/${model.ref}`; return `<option value="${esc(key)}" ${key === held ? "selected" : ""}>${esc(`${model.label} · ${run.label}`)}</option>`; }).join("")}</optgroup>`).join("");
      for (const side of ["a", "b"]) this.$(`[data-side="${side}"]`).innerHTML = options(this[side]);
    }

    side(key) {
      const cut = this[key].indexOf("/"), run = this.runs.find((one) => one.id === this[key].slice(0, cut)), ref = this[key].slice(cut + 1);
      return { run: run?.id, model: ref, label: run?.models.find((model) => model.ref === ref)?.label || ref };
    }

    async load() {
      const mine = ++this.asked, place = this.$("[data-pairs]");
      if (!this.a || !this.b || this.runs.reduce((n, run) => n + run.models.length, 0) < 2) return void (place.innerHTML = `<div class="st-empty"><b>${esc(t("is.compare.none"))}</b><p>${esc(t("is.compare.none.hint"))}</p><button type="button" class="st-btn st-primary" data-act="start">${esc(t("eval.view.start"))}</button></div>`);
      studio.evalAddress({ mode: null, a: this.a, b: this.b });
      place.setAttribute("aria-busy", "true");
      try {
        const found = await studio.call("eval_pairs", { a: this.side("a"), b: this.side("b") });
        if (mine !== this.asked) return;
        Object.assign(this, { found, shown: SHOWN });
        const mains = found.filter((line) => line.main), changed = mains.find((line) => line.flips.some((flip) => flip.kind === "worse")) || mains.find((line) => line.flips.length) || mains[0];
        this.task = found.some((line) => line.main && line.task === this.task) ? this.task : changed?.task || "";
        this.pairs();
      } catch (error) {
        if (mine === this.asked) place.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`;
      } finally { if (mine === this.asked) place.removeAttribute("aria-busy"); }
    }

    pairs() {
      const place = this.$("[data-pairs]"), { found } = this, a = this.side("a"), b = this.side("b");
      if (!found.length) return void (place.innerHTML = `<div class="st-empty"><b>${esc(t("is.compare.alike"))}</b><p>${esc(t("is.compare.alike.hint"))}</p></div>`);
      const mains = found.filter((line) => line.main && isNumber(line.delta)), groups = [["worse", mains.filter((line) => line.sure && line.worse)], ["better", mains.filter((line) => line.sure && !line.worse)], ["even", mains.filter((line) => !line.sure)]];
      const verdict = groups.filter(([, own]) => own.length).map(([key, own]) => `<span class="ev-verdict-part ev-${key}"><b>${esc(t(`is.compare.${key}`))}</b> ${esc(own.map((line) => line.title || line.task).join(", "))}</span>`).join("");
      const lines = this.all ? found : mains, more = found.length > mains.length, metric = (line) => ({ low: line.low_bound, high: line.high_bound });
      const bound = Math.max(...lines.filter((line) => line.low_bound === 0 && line.high_bound === 1).flatMap((line) => [line.delta, line.low ?? 0, line.high ?? 0].map(Math.abs)), 0.02);
      const picture = (line) => {
        const top = line.low_bound === 0 && line.high_bound === 1 ? bound : Math.max(...[line.delta, line.low ?? 0, line.high ?? 0].map(Math.abs), 1e-12), at = (v) => (50 + (47 * v) / top).toFixed(1);
        return `<span class="is-forest" aria-hidden="true"><i></i>${isNumber(line.low) ? `<u style="left:${at(line.low)}%;right:${(100 - at(line.high)).toFixed(1)}%"></u>` : ""}<b style="left:${at(line.delta)}%"></b></span>`;
      };
      const tone = (line) => (line.sure ? (line.worse ? "is-worse" : "is-better") : "is-even");
      const row = (line) => `<tr class="${tone(line)}"><th scope="row"><b>${esc(line.title || line.task)}</b><small>${esc(line.metric)} ${line.higher_is_better ? "↑" : "↓"} · ${esc(studio.num(line.n))}${line.left_out ? ` · ${esc(t("is.compare.left", { n: studio.num(line.left_out) }))}` : ""}</small></th>
        <td class="ev-value">${esc(studio.evalNumber(line.a, metric(line)))}</td><td class="ev-value">${esc(studio.evalNumber(line.b, metric(line)))}</td><td>${studio.insightChange(line, metric(line))}</td><td>${picture(line)}</td><td class="ev-value">${line.p == null ? "–" : line.p < 0.001 ? "< 0.001" : esc(studio.num(line.p, 2))}</td>
        <td class="is-flips">${["better", "worse"].map((kind) => (line[`${kind}_answers`] && line.main ? `<button type="button" class="ev-flip" data-flips="${kind}" data-task="${esc(line.task)}">${kind === "better" ? "▲" : "▼"} ${esc(studio.num(line[`${kind}_answers`]))}</button>` : "")).join("")}</td></tr>`;
      place.innerHTML = `<p class="ev-verdict" role="status">${verdict}</p>
        <div class="is-table-top">${more ? `<div class="ev-switch" role="group">${[false, true].map((all) => `<button type="button" data-all="${all}" aria-pressed="${all === this.all}">${esc(t(all ? "is.compare.all" : "is.compare.only_main"))}</button>`).join("")}</div>` : ""}</div>
        <div class="ev-scroll" tabindex="0" role="region" aria-label="${esc(t("is.compare.delta"))}"><table class="st-table ev-table is-table is-pairs"><thead><tr><th scope="col">${esc(t("is.compare.task"))}</th><th scope="col">${esc(a.label)}</th><th scope="col">${esc(b.label)}</th><th scope="col">${esc(t("is.compare.delta"))}</th><th scope="col">${esc(t("is.compare.interval"))}</th><th scope="col">${esc(t("is.compare.p"))}</th><th scope="col">${esc(t("is.compare.flips"))}</th></tr></thead><tbody>${lines.map(row).join("")}</tbody></table></div>
        <p class="st-muted ev-legend">${esc(t("is.compare.legend"))}</p><section class="is-changed-answers"></section>`;
      this.flips();
    }

    flips() {
      const place = this.$(".is-changed-answers"), mains = this.found.filter((line) => line.main), line = mains.find((one) => one.task === this.task), count = (kind) => line?.flips.filter((flip) => flip.kind === kind).length || 0;
      if (!place || !line) return;
      if (!count(this.kind) && line.flips.length) this.kind = line.flips[0].kind;
      const own = line.flips.filter((flip) => flip.kind === this.kind), a = this.side("a"), b = this.side("b"), metric = { low: line.low_bound, high: line.high_bound };
      const binary = own.every((flip) => [flip.a_score, flip.b_score].every((v) => v === 0 || v === 1));
      const mark = (score) => (binary ? `<span class="ev-mark ${score ? "ev-right" : "ev-wrong"}" aria-label="${esc(t(score ? "eval.right" : "eval.wrong"))}">${score ? "✓" : "✕"}</span>` : `<span class="ev-score">${esc(studio.evalNumber(score, metric))}</span>`);
      const answer = (label, text, score) => `<div class="ev-answer"><span class="ev-answer-head"><small>${esc(label)}</small>${mark(score)}</span><div class="ev-prompt">${text.trim() ? esc(text) : `<span class="st-muted">${esc(t("is.errors.empty"))}</span>`}</div></div>`;
      place.innerHTML = `<header class="ev-part-head"><h2>${esc(t("is.compare.changed"))}</h2><div class="ev-tools">${mains.length > 1 ? `<select data-tasks aria-label="${esc(t("is.compare.task"))}">${mains.map((one) => `<option value="${esc(one.task)}" ${one.task === this.task ? "selected" : ""}>${esc(one.title || one.task)}</option>`).join("")}</select>` : ""}<div class="ev-switch" role="group">${["worse", "better"].map((kind) => `<button type="button" data-kind="${kind}" aria-pressed="${kind === this.kind}">${esc(t(`is.compare.kind.${kind}`))} <i>${esc(studio.num(line[`${kind}_answers`]))}</i></button>`).join("")}</div></div></header>
        ${own.length ? `<div class="ev-rows"><div class="ev-heads" style="--n:2" aria-hidden="true"><b>${esc(t("is.errors.question"))}</b><b>${esc(a.label)}</b><b>${esc(b.label)}</b></div>${own.slice(0, this.shown).map((flip) => `<article class="ev-row" style="--n:2"><div class="ev-asked"><div class="ev-prompt">${esc(flip.prompt)}</div>${flip.target ? `<p class="ev-target"><span>${esc(t("is.compare.right"))}</span> ${esc(flip.target)}</p>` : ""}</div>${answer(a.label, flip.a, flip.a_score)}${answer(b.label, flip.b, flip.b_score)}</article>`).join("")}</div>${own.length > this.shown ? `<footer class="ev-pages"><button type="button" class="st-btn st-small" data-act="more">${esc(t("is.compare.more"))}</button></footer>` : ""}` : `<p class="st-muted">${esc(t("is.compare.changed.none"))}</p>`}`;
    }

    click(event) {
      const { mode, act, all, flips, kind, task } = event.target.closest("button")?.dataset || {};
      if (mode) return this.show({ mode }).catch(studio.failed);
      if (all) { this.all = all === "true"; return this.pairs(); }
      if (kind) { this.kind = kind; this.shown = SHOWN; return this.flips(); }
      if (flips) { Object.assign(this, { task, kind: flips, shown: SHOWN }); this.flips(); return this.$(".is-changed-answers").scrollIntoView({ behavior: "smooth", block: "start" }); }
      const runs = [...new Set([this.side("a").run, this.side("b").run].filter(Boolean))];
      if (act === "swap") { [this.a, this.b] = [this.b, this.a]; this.draw(); this.load(); }
      if (act === "more") { this.shown += 20; this.flips(); }
      if (act === "start") studio.evalGo("start");
      if (act === "report") studio.reportRuns(runs);
      if (act === "analyse") studio.sortErrors(runs);
    }
  }

  let compare = null;
  studio.evalView("compare", { order: 40, shown(place, detail) { compare ??= new Compare(place); compare.show(detail).catch(studio.failed); } });
})();
