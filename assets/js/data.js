/* The Dataset tab: sources and versions on the left, the open version with its pipeline and its views on the right. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const { icons, num } = studio.dataParts;
  const VIEWS = ["rows", "review", "statistics", "doctor", "versions"], STEPS = ["clean", "shape", "make"];

  class Data {
    constructor({ element, root, props, watch }) {
      Object.assign(this, { element, root, props, open: null, head: null, view: "rows", page: "", filter: "", unfolded: new Set(), mounted: new Set(), asked: 0,
        state: { versions: [], steps: [], ready: [], forms: {}, pipelines: [], datasets: [], models: [] } });
      root.innerHTML = `<div class="dt"><aside class="dt-rail" id="data-rail" aria-label="${esc(t("data.list"))}"><div class="dt-rail-top">
          <button type="button" class="st-btn" id="data-bring">${icons.upload}${esc(t("data.bring"))}</button><button type="button" class="st-btn" id="data-make">${icons.spark}${esc(t("data.make"))}</button>
          <input type="search" id="data-search" placeholder="${esc(t("data.list.search"))}" aria-label="${esc(t("data.list.search"))}"></div><nav class="dt-list" id="data-list" aria-label="${esc(t("data.list"))}"></nav></aside>
        <section class="dt-main"><button type="button" class="st-icon dt-toggle" id="data-toggle" aria-controls="data-rail" aria-expanded="false" aria-label="${esc(t("data.list"))}">${icons.list}</button>
          <div class="dt-job st-card" id="data-job" hidden></div>
          <div class="dt-open" hidden><header class="dt-bar"><div class="dt-name"><h1></h1><p class="st-muted"></p></div><div class="st-actions dt-acts">
            <button type="button" class="st-btn st-primary" data-do="train">${esc(t("data.train"))}</button><button type="button" class="st-btn" data-do="download">${esc(t("data.download"))}</button>
            <span class="dt-pop-place"><button type="button" class="st-btn" data-do="menu" aria-haspopup="menu" aria-expanded="false" aria-label="${esc(t("data.more"))}">${icons.more}</button></span></div></header>
            <div class="dt-strip" id="data-strip"></div><p class="dt-at" hidden></p><div class="dt-told-place"></div>
            <div class="st-views dt-views" role="tablist">${VIEWS.map((v) => `<button type="button" role="tab" id="data-tab-${v}" data-view="${v}" aria-controls="data-view-${v}">${esc(t(`data.view.${v}`))}</button>`).join("")}</div>
            ${VIEWS.map((v) => `<div class="dt-view" role="tabpanel" id="data-view-${v}" aria-labelledby="data-tab-${v}" hidden></div>`).join("")}</div>
          <div class="dt-place" id="data-page-bring" hidden></div><div class="dt-place" id="data-page-make" hidden></div><div class="dt-place" id="data-page-empty" hidden></div></section></div>`;
      this.$ = (selector) => root.querySelector(selector);
      this.bring = new studio.DataBring(this, this.$("#data-page-bring"));
      this.strip = new studio.DataStrip(this, this.$("#data-strip"));
      this.actions = new studio.DataActions(this);
      this.listen();
      watch("value", () => this.wanted(props.value?.wanted));
      this.ready = this.start().catch((error) => { this.trouble(error); });
      this.job = new studio.DataJob(this, this.$("#data-job"));
      studio.data = this;
    }

    listen() {
      this.$("#data-bring").onclick = () => this.go("bring");
      this.$("#data-make").onclick = () => this.go("make");
      this.$("#data-toggle").onclick = () => this.rail(!this.$(".dt").classList.contains("dt-rail-open"));
      this.$("#data-search").oninput = (event) => { this.filter = event.target.value.toLowerCase(); this.list(); };
      this.$("#data-list").onclick = (event) => {
        const { ref, fold } = event.target.closest("button")?.dataset || {};
        if (ref) { this.rail(false); this.openVersion(ref); }
        if (fold) { if (!this.unfolded.delete(fold)) this.unfolded.add(fold); this.list(); }
      };
      this.$(".dt-views").onclick = (event) => event.target.dataset.view && this.show(event.target.dataset.view);
      this.$(".dt-acts").onclick = (event) => {
        const button = event.target.closest("[data-do]"), act = button?.dataset.do;
        if (act === "menu") this.actions.menu(button); else if (act === "train") this.actions.train(); else if (act === "download") this.actions.download();
      };
      this.$("#data-page-make").onclick = (event) => { const name = event.target.closest("[data-step]")?.dataset.step; if (name) this.startStep({ method: name, ...this.reads(name) }); };
      this.$("#data-page-empty").onclick = (event) => {
        const act = event.target.closest("[data-go]")?.dataset.go;
        if (act === "shipped") this.submit({ kind: "data", method: "import", sources: ["shipped:polite"] }).catch(studio.failed);
        else if (act) this.go(act);
      };
      const main = this.$(".dt");
      main.addEventListener("dragover", (event) => { if ([...event.dataTransfer.types].includes("Files")) { event.preventDefault(); main.classList.add("dt-dragging"); } });
      main.addEventListener("dragleave", (event) => { if (!main.contains(event.relatedTarget)) main.classList.remove("dt-dragging"); });
      main.addEventListener("drop", (event) => {
        main.classList.remove("dt-dragging");
        if (!event.dataTransfer.files.length) return;
        event.preventDefault();
        this.go("bring");
        this.bring.upload([...event.dataTransfer.files]);
      });
      this.$(".dt-main").addEventListener("pointerdown", (event) => event.target.closest("#data-toggle") || this.rail(false));
      window.addEventListener("studio:tab", (event) => { if (event.detail === "data") { this.address(); this.strip.reveal(); this.refresh(); } else if (this.open) for (const name of ["data", "view", "job"]) studio.setParam(name, null); });
      window.addEventListener("studio:runs-ended", () => this.shown() && this.refreshList());
    }

    shown() { return this.root.getClientRects().length > 0; }
    rail(open) { this.$(".dt").classList.toggle("dt-rail-open", open); this.$("#data-toggle").setAttribute("aria-expanded", String(open)); }
    context() { return { models: this.state.models, datasets: this.state.datasets.filter((d) => d.stage !== "step") }; }

    // ---- what there is

    async start() {
      Object.assign(this.state, await studio.call("data_start"));
      this.offer();
      const ref = studio.param("data"), view = studio.param("view");
      if (VIEWS.includes(view)) this.view = view;
      const wanted = this.props.value?.wanted;
      if (wanted && Object.keys(wanted).length) setTimeout(() => this.wanted(wanted));  // once this is done
      if (wanted?.ref) return;
      if (ref && ref !== "bring" && ref !== "make") await this.openVersion(ref);
      else if (ref) this.go(ref);
      else if (this.state.versions.length) await this.openVersion((this.state.versions.find((v) => v.stage !== "step") || this.state.versions[0]).ref);
      else this.go("empty");
    }

    trouble(error) {
      this.$("#data-page-empty").innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`;
      this.go("empty", true);
    }

    /** Ask again what there is; with the open version. */
    async refresh() {
      await this.ready;
      await this.refreshList();
      if (this.page) return;
      if (this.open) await this.openVersion(this.open.ref, { quiet: true });
    }

    async refreshList() {
      try { Object.assign(this.state, await studio.call("data_start", { again: this.state.steps.length > 0 })); this.offer(); } catch (error) { if (!error.offline) studio.failed(error); }
    }

    offer() {
      this.list();
      this.bring.refresh();
      this.makes();
      if (this.page === "empty" && this.state.versions.length) this.go("");
    }

    list() { studio.dataList(this.$("#data-list"), this.state.versions, this.page ? "" : this.open?.ref, this.filter, this.unfolded); }

    makes() {
      const made = this.state.steps.filter((s) => s.group === "make"), steps = [...made.filter((s) => s.starts), ...made.filter((s) => !s.starts)], reads = this.open ? t("data.make.open", { name: this.open.name }) : t("data.make.need");
      const html = `<div class="dt-page"><header class="dt-page-head"><h1>${esc(t("data.make.title"))}</h1><p class="st-muted">${esc(t("data.make.lead"))}</p></header>
        <div class="dt-makes">${steps.map((s) => `<article class="st-card dt-make"><h2>${esc(s.title)}</h2><p>${esc(s.summary)}</p><p class="st-muted">${studio.dataParts.paperLink(s.paper)}</p><footer><button type="button" class="st-btn st-small" data-step="${esc(s.name)}">${esc(t("data.make.choose"))}</button><small class="st-muted">${s.starts ? esc(t("data.make.starts")) : esc(reads)}</small></footer></article>`).join("")}</div>
        ${steps.length ? "" : `<div class="st-empty"><b>${esc(t("data.make.none"))}</b></div>`}</div>`;
      if (html !== this.made_) this.$("#data-page-make").innerHTML = this.made_ = html;
    }

    empty() {
      this.$("#data-page-empty").innerHTML = `<div class="st-empty dt-first"><b>${esc(t("data.first"))}</b><p>${esc(t("data.first.hint"))}</p>
        <div class="st-actions"><button type="button" class="st-btn st-primary" data-go="bring">${esc(t("data.bring"))}</button><button type="button" class="st-btn" data-go="shipped">${esc(t("data.first.shipped"))}</button><button type="button" class="st-btn" data-go="make">${esc(t("data.first.make"))}</button></div></div>`;
    }

    // ---- where the person is

    /** One of the pages "bring", "make", "empty", or "" for the open version. */
    go(page, drawn = false) {
      if (!page && !this.open) page = "empty";
      if (page === "empty" && !drawn) this.empty();
      this.page = page;
      if (page === "make") this.makes();
      this.$(".dt-open").hidden = Boolean(page);
      if (!page) this.strip.reveal();
      for (const name of ["bring", "make", "empty"]) this.$(`#data-page-${name}`).hidden = page !== name;
      for (const name of ["bring", "make"]) this.$(`#data-${name}`).setAttribute("aria-pressed", String(page === name));
      if (page) this.hide(this.view);
      this.rail(false);
      this.list();
      this.address();
    }

    /** The place in the address, so that a reload comes back to it. */
    address() {
      if (studio.tabNow() !== "data") return;
      studio.setParam("data", this.page === "empty" ? null : this.page || this.open?.ref || null);
      studio.setParam("view", this.page || this.view === "rows" ? null : this.view);
      this.job?.here();
    }

    async openVersion(ref, { quiet = false, keep = false } = {}) {
      const mine = ++this.asked;
      let open;
      try { open = await studio.call("data_open", { ref }); } catch (error) {
        if (mine !== this.asked) return;
        if (!quiet) studio.failed(error);
        if (!this.open || this.open.ref === ref && !error.offline) return this.closed();
        return;
      }
      if (mine !== this.asked) return;
      if (!keep && !(quiet && this.head?.pipeline.some((s) => s.ref === ref))) this.head = open;
      this.open = open;
      this.draw();
      if (!quiet || !this.page) this.go("");
      this.show(this.view);
    }

    /** A stage of the pipeline that is shown, or the rows it left out. */
    look(ref, split = "") {
      if (split) { studio.dataViews.rows?.want?.({ split }); this.view = "rows"; }
      return ref === this.open.ref ? this.show(this.view) : this.openVersion(ref, { keep: true });
    }

    draw() {
      const open = this.open, splits = Object.entries(open.rows || {});
      this.$("h1").textContent = open.name;
      const facts = [open.title, splits.length > 1 ? splits.map(([k, n]) => `${t(`data.split.${k}`)} ${num(n)}`).join(", ") : t("library.rows", { n: num(open.total) }), studio.bytes(open.size), studio.ago(open.created), open.edits?.count ? t("data.edits", { n: open.edits.count }) : ""];
      this.$(".dt-name p").textContent = facts.filter(Boolean).join(" · ");
      this.strip.draw(this.head, open);
      const told = this.$(".dt-told-place"), made = studio.dataFacts(this.head.pipeline[this.strip.at()]);
      if (told.dataset.shown !== `${open.ref}${made}`) { told.innerHTML = made; told.dataset.shown = `${open.ref}${made}`; }
      const stage = this.head.ref !== open.ref, note = this.$(".dt-at");
      note.hidden = !stage;
      if (stage) {
        note.innerHTML = `${esc(t("data.at", { n: this.strip.at() + 1, of: this.head.pipeline.length }))} <button type="button" class="st-link">${esc(t("data.at.back", { name: this.head.name }))}</button>`;
        note.querySelector("button").onclick = () => this.openVersion(this.head.ref);
      }
    }

    show(view) {
      const before = this.view, root = this.$(`#data-view-${view}`), part = studio.dataViews[view];
      if (before !== view) this.hide(before);
      this.view = view;
      for (const v of VIEWS) {
        const tab = this.$(`#data-tab-${v}`);
        tab.setAttribute("aria-selected", String(v === view));
        tab.tabIndex = v === view ? 0 : -1;
        this.$(`#data-view-${v}`).hidden = v !== view;
      }
      this.address();
      if (!part) return void (root.innerHTML = `<div class="st-empty"><b>${esc(t("data.view.missing"))}</b></div>`);
      try {
        if (!this.mounted.has(view)) { this.mounted.add(view); part.mount(root, this.shared()); }
        part.show(this.open);
      } catch (error) { console.error(error); root.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(t("data.view.broken"))}</b><p>${esc(error.message)}</p></div>`; this.mounted.delete(view); }
    }

    hide(view) { if (this.mounted.has(view)) studio.dataViews[view].hide?.(); }

    /** What the views are given. */
    shared() {
      return (this.shared_ ??= {
        call: (name, values) => studio.call(name, values), open: (ref) => this.openVersion(ref), startStep: (values, opts) => this.startStep(values, opts),
        runStep: async (values) => { const run = await this.submit(values).catch((error) => { studio.failed(error); return null; }); return run ? run.over : null; },
        toast: studio.toast, refresh: () => this.refresh(), versions: () => this.state.versions, steps: () => this.state.steps, view: (view) => this.show(view),
      });
    }

    /** Another part of the page wants something shown here: {ref} | {bring: ref} | {values: {dataset}} | {run}. */
    async wanted(wanted) {
      if (!wanted) return;
      await this.ready;
      if (wanted.ref) return this.openVersion(wanted.ref);
      if (wanted.run) { this.job.follow(wanted.run); return; }
      const bring = wanted.bring || wanted.values?.dataset;
      if (bring) { this.go("bring"); this.bring.add(bring); }
    }

    async closed() {
      Object.assign(this, { open: null, head: null });
      await this.refreshList();
      const next = this.state.versions.find((v) => v.stage !== "step");
      if (next) await this.openVersion(next.ref); else this.go("empty");
    }

    // ---- steps and jobs

    reads(name) {
      const step = this.state.steps.find((s) => s.name === name);
      return step && !step.starts && this.open ? { dataset: this.open.ref } : {};
    }

    async addStep() {
      const answer = await studio.stepMenu(this.state.steps, STEPS, t("data.step.add.title", { name: this.open.name }), { saved: this.state.pipelines, ready: this.state.ready });
      if (answer?.step) this.startStep({ method: answer.step.name, dataset: this.open.ref });
      if (answer?.pipeline) this.strip.apply(answer.pipeline, this.open);
    }

    /** The dialog of a step, filled with these values. */
    startStep(values, options = {}) {
      const { kind, method, ...rest } = values, step = this.state.steps.find((s) => s.name === method);
      if (!step) return studio.toast(t("data.step.unknown", { name: method }), "bad");
      const ref = rest.dataset, name = ref && (this.state.versions.find((v) => v.ref === ref)?.name || this.state.datasets.find((d) => d.ref === ref)?.label);
      return studio.stepDialog({ step, values: rest, reads: name || "", context: this.context(), run: (recipe, trying) => this.submit(trying && !recipe.name ? { ...recipe, name: t("data.try.name", { name: (name || step.title).slice(0, 60) }) } : recipe), ...options });
    }

    /** Start a job and follow it here. The answer is the run; its `over` is a promise of how it ended. Rejects when refused. */
    async submit(given) {
      const values = { ...given }, from = this.state.versions.find((v) => v.ref === values.dataset);
      if (!values.name && from && values.kind === "data" && values.method !== "export") values.name = studio.dataParts.stem(from.name);
      if (!values.name) delete values.name;
      const run = await studio.call("submit", { values });
      this.job.asked = run.id;
      this.from = this.open?.ref;
      const over = this.job.follow(run.id);
      window.dispatchEvent(new CustomEvent("studio:runs"));
      this.$(".dt-main").scrollTop = 0;
      return Object.assign(run, { over });
    }

    /** A pipeline came out where an earlier one had: that version is opened. */
    async already(hash) {
      await this.refreshList();
      const found = this.state.versions.find((v) => v.hash === hash);
      if (!found) return this.refresh();
      studio.toast(t("data.already", { name: found.name }));
      await this.openVersion(found.ref);
    }

    /** A job made a version: it is opened, unless the person is busy elsewhere on this tab. */
    async made(artifact, run) {
      await this.refreshList();
      const summary = run.summary || {};
      studio.toast(t("data.made", { name: artifact.name }), "good", summary.rows_in != null ? t("data.made.counts", { rows_in: num(summary.rows_in), rows_out: num(summary.rows_out) }) : "");
      if (document.querySelector("dialog.dt-dialog[open]")) return;
      if (this.page === "bring" && this.bring.sources.length) return;
      if (!this.page && this.open && ![this.from, run.recipe?.dataset].includes(this.open.ref)) return;  // gone on to something else
      await this.openVersion(artifact.ref || `library:${artifact.id}`);
    }
  }

  studio.parts.data = (context) => new Data(context);
})();
