/* Where models fail: groups of failures by tag, length, topic and kind, the answers of each side by side, and a dataset to mend them. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const PAGE = 20, BY = ["topic", "tag", "task", "length", "kind"];
  const share = (v) => `${Math.round(100 * v)} %`;
  const kindOf = (name) => (studio.known(`is.error.${name}`) ? t(`is.error.${name}`) : name);

  /** One analysis: groups on the left, their failures on the right. */
  class Analysis {
    constructor(place, { told = () => {} } = {}) {
      Object.assign(this, { place, told, run: "", group: "", text: "", at: 0, asked: 0 });
      place.innerHTML = `<div class="is is-errors"><p class="is-summary"></p><div class="is-two"><nav class="is-groups" aria-label="${esc(t("is.errors.groups"))}"></nav>
        <section class="is-failures"><header class="ev-part-head"><h2></h2><div class="ev-tools"><input type="search" data-find placeholder="${esc(t("is.errors.find"))}" aria-label="${esc(t("is.errors.find"))}"><button type="button" class="st-btn st-small st-primary" data-mend>${esc(t("is.errors.mend"))}</button></div></header><div class="ev-rows" aria-live="polite"></div><footer class="ev-pages"></footer></section></div></div>`;
      this.$ = (selector) => place.querySelector(selector);
      let wait;
      this.$("[data-find]").oninput = (event) => { clearTimeout(wait); wait = setTimeout(() => { this.text = event.target.value.trim(); this.at = 0; this.load(); }, 300); };
      place.addEventListener("click", (event) => {
        const { group, page, mend } = event.target.closest("button")?.dataset || {};
        if (group !== undefined) { this.group = group; this.at = 0; this.groups(); this.told({ group }); this.load(); }
        if (page) { this.at = Number(page); this.load(); this.$(".is-failures").scrollIntoView({ block: "start" }); }
        if (mend !== undefined) this.mend();
      });
    }

    async show(run, group = "") {
      const found = await studio.call("errors", { run });
      Object.assign(this, { run, found, text: "", at: 0, group: found.groups.some((g) => g.id === group) ? group : "" });
      this.$("[data-find]").value = "";
      const rules = Object.values(found.rules).map((rule) => `${rule.title}: ${rule.words}`).join("; ");
      this.$(".is-summary").innerHTML = `<b>${esc(t("is.errors.summary", { failed: studio.num(found.failed), questions: studio.num(found.questions), all: studio.num(found.by_all) }))}</b> <span class="st-muted">${esc(t("is.errors.rules", { rules }))}${found.topics ? ` ${esc(t(`is.errors.topics.${found.topics.by}`))}` : ""}</span>`;
      this.groups();
      await this.load();
    }

    groups() {
      const { found } = this, line = (id, name, told, failed, width, out) => `<button type="button" class="is-group${out ? " is-out" : ""}" data-group="${esc(id)}" aria-current="${this.group === id}"><b>${esc(name)}</b><span class="is-n">${esc(studio.num(failed))}</span>${told ? `<small>${esc(told)}</small>` : ""}<i class="ev-bar-line"><b style="width:${Math.max(1, 100 * width).toFixed(1)}%"></b></i></button>`;
      const one = (g) => line(g.id, g.by === "kind" ? kindOf(g.name) : g.title, g.others == null ? t("is.errors.rate.kind", { n: studio.num(g.failed), share: share(g.rate) }) : `${t("is.errors.rate", { n: studio.num(g.failed), of: studio.num(g.questions), others: share(g.others) })}${g.stands_out ? ` · ${t("is.errors.stands_out")}` : ""}`, g.failed, g.rate, g.stands_out);
      this.$(".is-groups").innerHTML = line("", t("is.errors.all"), "", found.failed, found.questions ? found.failed / found.questions : 0, false)
        + BY.map((by) => [by, found.groups.filter((g) => g.by === by)]).filter(([, own]) => own.length).map(([by, own]) => `<h3>${esc(t(`is.errors.by.${by}`))}</h3>${own.map(one).join("")}`).join("");
    }

    async load() {
      const mine = ++this.asked, { found } = this, group = found.groups.find((g) => g.id === this.group);
      this.$("h2").textContent = group ? (group.by === "kind" ? kindOf(group.name) : group.title) : t("is.errors.all");
      try {
        const rows = await studio.call("errors_answers", { run: this.run, group: this.group, text: this.text, offset: this.at, limit: PAGE });
        if (mine === this.asked) this.draw(rows);
      } catch (error) { if (mine === this.asked) this.$(".ev-rows").innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`; }
    }

    draw({ total, rows }) {
      const { sides } = this.found, n = sides.length;
      const answer = (row, side, number) => {
        const one = row.answers.find((each) => each.side === number);
        if (!one) return '<div class="ev-answer ev-absent"></div>';
        return `<div class="ev-answer"><span class="ev-answer-head"><small>${esc(side.label)}</small><span class="ev-mark ${one.failed ? "ev-wrong" : "ev-right"}" aria-label="${esc(t(one.failed ? "eval.wrong" : "eval.right"))}">${one.failed ? "✕" : "✓"}</span></span><div class="ev-prompt">${one.answer.trim() ? esc(one.answer) : `<span class="st-muted">${esc(t("is.errors.empty"))}</span>`}</div>${one.failed ? `<p class="ev-target">${esc(kindOf(one.kind))}</p>` : ""}</div>`;
      };
      this.$(".ev-rows").innerHTML = rows.length ? `<div class="ev-heads" style="--n:${n}" aria-hidden="true"><b>${esc(t("is.errors.question"))}</b>${sides.map((side) => `<b>${esc(side.label)}</b>`).join("")}</div>${rows.map((row) => `<article class="ev-row" style="--n:${n}"><div class="ev-asked"><div class="ev-prompt">${esc(row.question)}</div><p class="ev-target"><span>${esc(t("is.errors.right"))}</span> ${esc(row.target || t("is.errors.unknown"))}</p>${row.prompt.trim() === row.question.trim() ? "" : `<details class="is-whole"><summary>${esc(t("is.errors.prompt"))}</summary><pre>${esc(row.prompt)}</pre></details>`}</div>${sides.map((side, number) => answer(row, side, number)).join("")}</article>`).join("")}` : `<div class="st-empty"><b>${esc(t("is.errors.no_rows"))}</b></div>`;
      this.$(".ev-pages").innerHTML = total > PAGE ? `<button type="button" class="st-btn st-small" data-page="${Math.max(0, this.at - PAGE)}" ${this.at ? "" : "disabled"}>${esc(t("is.errors.before"))}</button><span>${esc(t("is.errors.pages", { from: this.at + 1, to: Math.min(total, this.at + PAGE), total: studio.num(total) }))}</span><button type="button" class="st-btn st-small" data-page="${this.at + PAGE}" ${this.at + PAGE < total ? "" : "disabled"}>${esc(t("is.errors.next"))}</button>` : "";
    }

    /** The group as a dataset, with the right answers filled in. */
    async mend() {
      const group = this.found.groups.find((g) => g.id === this.group), n = group ? group.failed : this.found.failed;
      const answer = await studio.ask(t("is.errors.mend.title"), `<p class="st-muted">${esc(t("is.errors.mend.about", { n: studio.num(n) }))}</p>${["messages", "preference"].map((shape, i) => `<label class="st-check"><input type="radio" name="shape" value="${shape}" ${i ? "" : "checked"}> ${esc(t(`is.errors.mend.${shape}`))}</label>`).join("")}
        <label class="st-line">${esc(t("is.errors.mend.name"))}<input type="text" name="name" maxlength="80"></label><p class="st-muted">${esc(t("is.errors.mend.warning"))}</p>`, t("is.errors.mend.go"));
      if (!answer) return;
      try {
        const made = await studio.call("errors_dataset", { run: this.run, group: this.group, shape: answer.shape, name: answer.name });
        const tab = answer.shape === "messages" ? "finetune" : "align";
        const next = await studio.ask(t("is.errors.mend.made", { name: made.name, n: studio.num(made.rows) }), `${made.left_out ? `<p>${esc(t("is.errors.mend.left", { n: studio.num(made.left_out) }))}</p>` : ""}<p class="st-muted">${esc(t("is.errors.mend.warning"))}</p><label class="st-check"><input type="radio" name="next" value="data" checked> ${esc(t("is.errors.open_data"))}</label><label class="st-check"><input type="radio" name="next" value="train"> ${esc(t("is.errors.train"))}</label>`, t("is.errors.mend.next"));
        if (next?.next === "data") studio.open("data", { ref: made.ref });
        if (next?.next === "train") studio.open(tab, { values: { dataset: made.ref, ...(tab === "align" ? { method: "dpo" } : {}) } });
      } catch (error) { studio.failed(error); }
    }
  }

  /** The view: which analysis, and how to make one. */
  class Errors {
    constructor(place) {
      Object.assign(this, { place, run: "" });
      place.innerHTML = `<div class="is is-page"><header class="ev-part-head"><h1>${esc(t("eval.view.errors"))}</h1><div class="ev-tools"><select data-run aria-label="${esc(t("is.errors.runs"))}"></select><button type="button" class="st-btn st-small" data-report>${esc(t("is.board.report"))}</button><button type="button" class="st-btn st-small" data-new>${esc(t("is.errors.new"))}</button></div></header><div data-none></div><div data-analysis hidden></div></div>`;
      this.$ = (selector) => place.querySelector(selector);
      this.analysis = new Analysis(this.$("[data-analysis]"), { told: ({ group }) => studio.evalAddress({ analysis: this.run, group }) });
      studio.poll(place, 3000, () => this.runs || this.busy || !this.wanted || this.show(this.wanted));  // a server that was busy at first is asked again
      this.$("select[data-run]").onchange = (event) => this.open(event.target.value);
      place.addEventListener("click", (event) => { const { dataset } = event.target.closest("button") || {}; if (dataset?.new !== undefined) studio.sortErrors(); if (dataset?.report !== undefined) studio.reportRuns([this.analysis.found.sides[0].run, this.run]); });
    }

    async show(wanted = {}) {
      const { analysis = "", group = "" } = (this.wanted = wanted);
      this.busy = true;
      let runs;
      try { runs = this.runs = (await studio.insight.list()).filter((run) => run.part === "analysis"); } finally { this.busy = false; }
      const select = this.$("select[data-run]");
      select.innerHTML = runs.map((run) => `<option value="${esc(run.id)}">${esc(run.label)} · ${esc(studio.ago(run.ended))}</option>`).join("");
      const shown = [analysis, this.run, runs[0]?.id].find((id) => runs.some((run) => run.id === id));
      select.hidden = this.$("[data-report]").hidden = this.$("[data-new]").hidden = !runs.length;
      this.$("[data-analysis]").hidden = !shown;
      this.$("[data-none]").innerHTML = shown ? "" : `<div class="st-empty"><b>${esc(t("is.errors.none"))}</b><p>${esc(t("is.errors.none.hint"))}</p><button type="button" class="st-btn st-primary" data-new>${esc(t("is.errors.new"))}</button></div>`;
      if (shown) { select.value = shown; await this.open(shown, shown === this.run && !group ? this.analysis.group : group); }
    }

    async open(run, group = "") {
      this.run = run;
      await this.analysis.show(run, group);
      studio.evalAddress({ analysis: run, group: this.analysis.group });
    }
  }

  /** Ask which evaluations, then sort their failures. */
  studio.sortErrors = async (held = []) => {
    const answer = await studio.insight.ask(t("is.errors.new.title"), t("is.errors.none.hint"), t("is.errors.new"), { parts: ["evaluation"], most: 8, held });
    if (!answer) return;
    try {
      const names = (await studio.insight.list()).filter((one) => answer.runs.includes(one.id)).map((one) => one.label).join(", ");
      const run = await studio.call("submit", { values: { kind: "eval", method: "analyse", runs: answer.runs, name: studio.insight.named("is.errors.name", { names }) } });
      window.dispatchEvent(new CustomEvent("studio:runs"));
      studio.evalOpen(run.id);
    } catch (error) { studio.failed(error); }
  };

  let errors = null;
  studio.evalView("errors", { order: 50, shown(place, detail) { errors ??= new Errors(place); errors.show(detail).catch(studio.failed); } });
  studio.evalPanel("eval/analyse", (place, { run }) => {
    place.innerHTML = "<div></div>";
    new Analysis(place.firstElementChild).show(run.id).catch((error) => { place.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b></div>`; });
  });
})();
