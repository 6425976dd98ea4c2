/* The live view of a run: state, charts, samples, log, and what to do next. It polls with a cursor and rests when unseen. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  studio.lives = {};
  studio.shownRun = (tab) => studio.lives[tab]?.run || null;
  const RESUMABLE = ["failed", "stopped", "lost"];
  const LOG_LINES = 400;
  const TILES = [[["loss", "loss"]], [["eval_loss", "eval_loss"]], [["speed", "tokens_per_second"]]]; // of plain training

  class Live {
    constructor({ element, root, props, watch }) {
      Object.assign(this, { element, root, tab: props.tab, run: null, cursor: 0 });
      studio.lives[this.tab] = this;
      watch("value", () => props.value && this.show(props.value));
      studio.poll(element, 1000, () => this.poll());
      window.addEventListener("studio:tab", (event) => event.detail === this.tab && this.run && studio.setParam("run", this.run));
      const asked = studio.param("run"), wanted = studio.param("tab") || "runs";
      if (asked && wanted === this.tab) this.show(asked);
    }

    body() { return document.getElementById(`${this.tab}-body`); }

    /** Show a run here; null goes back. */
    show(run) {
      this.run = run || null;
      const body = this.body();
      if (body) body.dataset.view = run ? "live" : "setup";
      if (studio.tabNow() === this.tab) { studio.setParam("tab", this.tab); studio.setParam("run", this.run); }
      if (!run) { this.root.innerHTML = ""; this.charts = null; return window.dispatchEvent(new CustomEvent("studio:back", { detail: this.tab })); }
      Object.assign(this, { cursor: 0, state: null, details: null, charts: null, watched: null, samples: [], overlays: {}, stale: 0 });
      this.draw();
      window.scrollTo({ top: 0 });
      this.poll();
    }

    draw() {
      this.root.innerHTML = `
        <div class="st-run-head"><button type="button" class="st-btn st-back">‹ ${esc(t(`live.back.${this.tab}`))}</button>
          <div class="st-run-title"><h1>…</h1><p class="st-muted"></p></div><div class="st-run-actions"></div></div>
        <div class="st-banner" hidden></div>
        <div class="st-card st-run-status"><div class="st-run-line"><span data-pill></span><span data-step></span><span class="st-push" data-eta></span></div>
          <div class="st-bar" role="progressbar" aria-label="${esc(t("live.progress"))}" aria-valuemin="0" aria-valuemax="100"><i></i></div>
          <dl class="st-tiles" data-tiles></dl></div>
        <div class="st-after" hidden></div>
        <ul class="st-findings st-warnings"></ul>
        <div class="st-run-grid"><div class="st-card st-run-charts"></div>
          <div class="st-card st-run-side"><div class="st-views" role="tablist">
            <button type="button" role="tab" data-side="rollouts" aria-selected="false" hidden>${esc(t("rollouts.title"))}</button>
            <button type="button" role="tab" data-side="samples" aria-selected="true">${esc(t("live.samples"))}</button>
            <button type="button" role="tab" data-side="log" aria-selected="false">${esc(t("live.log"))}</button>
            <button type="button" role="tab" data-side="checkpoints" aria-selected="false">${esc(t("live.checkpoints"))}</button>
            <button type="button" role="tab" data-side="recipe" aria-selected="false">${esc(t("live.recipe"))}</button></div>
          <div data-pane="rollouts" hidden></div><div data-pane="samples"></div><div data-pane="log" hidden><pre class="st-log" tabindex="0" aria-label="${esc(t("live.log"))}"></pre></div>
          <div data-pane="checkpoints" hidden></div><div data-pane="recipe" hidden></div></div></div>`;
      this.$ = (selector) => this.root.querySelector(selector);
      this.$(".st-back").onclick = () => this.show(null);
      this.$(".st-views").onclick = (event) => event.target.dataset.side && this.side(event.target.dataset.side);
      this.drawSamples();
    }

    /** Show one pane beside the charts. */
    side(name) {
      for (const button of this.root.querySelectorAll("[data-side]")) button.setAttribute("aria-selected", String(button.dataset.side === name));
      for (const pane of this.root.querySelectorAll("[data-pane]")) pane.hidden = pane.dataset.pane !== name;
      if (name === "log") this.$(".st-log").scrollTop = 1e9;
    }

    /** What is watched depends on what kind of run it is. */
    async prepare(run) {
      const details = await studio.call("run", { run });
      if (run !== this.run) return;
      this.watched = studio.watched(details);
      this.charts = new studio.Charts(this.$(".st-run-charts"), this.watched);
      this.rollouts = new studio.Rollouts(this.$("[data-pane=rollouts]"));
      if (this.watched?.rolls) { this.$("[data-side=rollouts]").hidden = false; this.side("rollouts"); }
      this.compareControl();
    }

    async poll() {
      const run = this.run;
      if (!run || this.polling) return;
      if (this.state && !studio.active(this.state) && this.settled) return;
      this.polling = true;
      try {
        if (!this.charts) await this.prepare(run);
        if (run !== this.run) return;
        const news = await studio.call("poll", { run, cursor: this.cursor });
        if (run !== this.run) return;
        this.online();
        await this.take(news);
      } catch (error) {
        if (run === this.run) this.trouble(error);
      } finally { this.polling = false; }
      if (run !== this.run && this.run) this.poll();
    }

    online() {
      if (this.stale) { this.stale = 0; this.banner(); }
    }

    trouble(error) {
      if (!error.offline) {
        this.settled = true; this.state = "lost";
        this.$(".st-banner").hidden = false;
        this.$(".st-banner").className = "st-banner st-is-bad";
        this.$(".st-banner").innerHTML = `<div><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`;
        return;
      }
      this.stale += 1;
      if (this.stale < 3) return;
      const banner = this.$(".st-banner");
      banner.hidden = false;
      banner.className = "st-banner st-is-warn";
      banner.innerHTML = `<div><b>${esc(t("app.offline"))}</b><p>${esc(t("live.offline.hint"))}</p></div>`;
    }

    async take(news) {
      const before = this.state;
      if (news.reset) { this.charts.clear(); this.rollouts.clear(); this.samples = []; this.$(".st-log").textContent = ""; this.$(".st-warnings").innerHTML = ""; }
      this.cursor = news.cursor;
      this.news = { ...(this.news || {}), ...news, progress: news.progress || this.news?.progress };
      if (news.reset || !before) this.news.progress = news.progress;
      this.charts.add(news.series || {});
      if (news.log) this.log(news.log);
      if (news.samples?.length) { this.samples.push(...news.samples); this.drawSamples(); }
      if (news.rollouts?.length) { this.rollouts.add(news.rollouts); this.$("[data-side=rollouts]").hidden = false; }
      for (const warning of news.warnings || []) this.warn(warning);
      const changed = news.state !== before;
      this.state = news.state;
      this.settled = !studio.active(news.state);
      this.status();
      if (changed || !this.details || this.samples.length !== this.sampled) { this.sampled = this.samples.length; this.details = await studio.call("run", { run: this.run }); this.about(); }
      this.status();
      if (changed) {
        this.banner();
        this.actions();
        studio.say(t(`state.${this.state}`));
        window.dispatchEvent(new CustomEvent("studio:runs"));
      }
    }

    about() {
      if (["eval", "look"].includes(this.details.kind) && this.tab === "runs") { const { run } = this; this.show(null); return studio.evalOpen(run); } // scores and answers have a tab of their own
      const run = this.details, learns = studio.trains(run.kind) || Boolean(this.watched);
      if (!learns && !this.root.querySelector(".st-run-grid.st-no-charts")) { this.$(".st-run-grid").classList.add("st-no-charts"); this.$("[data-side=log]").click(); }
      this.$("h1").textContent = run.label;
      this.$(".st-run-title p").innerHTML = [t(`kind.${run.kind}`), studio.method(run), ...run.uses, run.place].filter(Boolean).map(esc).join(" · ");
      const recipe = this.$("[data-pane=recipe]");
      const rows = Object.entries(run.recipe || {}).filter(([name]) => name !== "schema_version");
      recipe.innerHTML = `<table class="st-table"><tbody>${rows.map(([name, v]) => `<tr><th scope="row">${esc(name)}</th><td>${esc(typeof v === "object" ? JSON.stringify(v) : v === "" ? "–" : v)}</td></tr>`).join("")}</tbody></table>`;
      this.drawCheckpoints();
      studio.views?.[run.parent ? "child" : run.kind]?.(this);
    }

    status() {
      const { progress } = this.news, run = this.details || {};
      const share = progress?.total ? Math.min(1, progress.done / progress.total) : this.state === "succeeded" ? 1 : 0;
      this.$("[data-pill]").innerHTML = studio.pill(this.state);
      this.$("[data-step]").textContent = progress?.total ? t([`${run.kind}.progress.${run.method}`, `${run.kind}.progress`].find(studio.known) || "live.step", { done: studio.num(run.kind === "quantize" ? Math.floor(progress.done) : progress.done), total: studio.num(progress.total) }) : "";
      const bar = this.$(".st-bar");
      bar.firstElementChild.style.width = `${(share * 100).toFixed(1)}%`;
      bar.classList.toggle("st-indeterminate", ["queued", "starting"].includes(this.state));
      bar.setAttribute("aria-valuenow", Math.round(share * 100));
      this.$("[data-eta]").textContent = this.state === "running" && progress?.eta != null ? t("live.eta", { time: studio.duration(progress.eta) })
        : this.state === "stopping" ? t("live.stopping") : this.state === "starting" ? t("live.starting") : this.state === "queued" ? t("live.queued") : "";
      const ended = run.ended || Date.now() / 1000, last = (name) => this.charts.lines[name]?.last;
      const figures = (this.watched?.tiles || TILES).map((ways) => ways.find(([, name]) => last(name) !== undefined) || ways[0]);
      const tiles = [...figures.map(([key, name]) => [key, last(name) === undefined ? "–" : studio.num(last(name), key === "speed" ? 3 : 4)]),
        ["elapsed", run.started ? studio.duration(ended - run.started) : "–"]];
      this.$("[data-tiles]").innerHTML = tiles.map(([key, v]) => `<div><dt>${esc(t(`live.${key}`))}</dt><dd>${esc(v)}</dd></div>`).join("");
    }

    banner() {
      const banner = this.$(".st-banner"), { reason, hint, offer } = this.news;
      const show = RESUMABLE.includes(this.state);
      banner.hidden = !show;
      if (!show) return;
      banner.className = `st-banner st-is-${this.state === "stopped" ? "info" : "bad"}`;
      banner.setAttribute("role", "alert");
      banner.innerHTML = `<div><b>${esc(reason || t(`live.${this.state}`))}</b><p>${esc(hint || t(`live.${this.state}.hint`))}</p></div>
        ${offer ? `<button type="button" class="st-btn st-primary" data-offer>${esc(t("live.offer", { change: studio.offerText(offer) }))}</button>` : ""}
        <button type="button" class="st-btn ${offer ? "" : "st-primary"}" data-resume>${esc(t("live.resume"))}</button>`;
      banner.querySelector("[data-resume]").onclick = () => this.do("resume");
      if (this.details?.place) studio.goOnHere(banner, () => this.do("resume", { here: true }));
      if (offer) banner.querySelector("[data-offer]").onclick = () => this.do("resume", { values: offer });
    }

    /** Ask for something and look again at once. */
    async do(what, more = {}) {
      try {
        await studio.call(what, { run: this.run, ...more });
        this.settled = false;
        if (what === "resume") this.cursor = 0, this.charts.clear(), this.rollouts.clear(), this.samples = [], this.$(".st-log").textContent = "", this.$(".st-warnings").innerHTML = "", this.state = null, this.details = null;
        await this.poll();
      } catch (error) { studio.failed(error); }
    }

    actions() {
      const place = this.$(".st-run-actions");
      place.innerHTML = "";
      const button = (key, act, kind = "") => {
        const made = Object.assign(document.createElement("button"), { type: "button", className: `st-btn ${kind}`, textContent: t(key) });
        made.onclick = () => act(made);
        place.append(made);
      };
      if (studio.active(this.state) && this.state !== "stopping") button(this.state === "queued" ? "action.cancel_run" : "live.stop", () => this.do("stop"), "st-danger");
      if (!["data", "sweep", "flow"].includes(this.details.kind)) button("live.python", (made) => this.python(made));
      if (studio.formOf[this.details.kind]) button("live.again", () => studio.again(this.details));
      const after = this.$(".st-after");
      after.hidden = !["succeeded", "stopped"].includes(this.state) || !(this.details.artifacts || []).length;
      if (!after.hidden) studio.artifactActions(after, this.details);
    }

    async python() {
      try {
        const text = await studio.call("run_script", { run: this.run });
        const done = studio.ask(t("live.python.title"), `<p class="st-muted">${esc(t("live.python.help"))}</p><pre class="st-code">${esc(text)}</pre><button type="button" class="st-btn" data-copy>${esc(t("action.copy"))}</button>`);
        document.querySelector("dialog [data-copy]").onclick = (event) => studio.copy(text, event.target);
        await done;
      } catch (error) { studio.failed(error); }
    }

    log(text) {
      const place = this.$(".st-log"), follow = place.scrollHeight - place.scrollTop - place.clientHeight < 40;
      const lines = (place.textContent + text).split("\n");
      place.textContent = lines.slice(-LOG_LINES).join("\n");
      if (follow) place.scrollTop = place.scrollHeight;
    }

    warn(warning) {
      const item = document.createElement("li");
      item.className = "st-finding st-level-warning";
      item.innerHTML = `<b>${esc(warning.message)}</b>${warning.hint ? `<span>${esc(warning.hint)}</span>` : ""}`;
      this.$(".st-warnings").append(item);
      for (const at of studio.warnedAt(warning.code)) this.charts.tell(at, warning);
    }

    drawSamples() {
      const place = this.$("[data-pane=samples]"), prompts = new Map();
      for (const s of this.samples) (prompts.get(s.prompt) || prompts.set(s.prompt, []).get(s.prompt)).push(s);
      if (!prompts.size) return void (place.innerHTML = `<div class="st-empty"><b>${esc(t("samples.empty"))}</b><p>${esc(t("samples.empty.hint"))}</p></div>`);
      place.innerHTML = [...prompts].map(([prompt, all]) => `<section class="st-sample"><h3>${esc(prompt)}</h3><table class="st-table"><thead><tr><th>${esc(t("samples.step"))}</th><th>${esc(t("samples.answer"))}</th></tr></thead><tbody>${
        [...all].sort((a, b) => b.step - a.step).map((s, i) => `<tr${i ? "" : ' class="st-newest"'}><td>${esc(s.step)}</td><td>${esc(s.text) || `<em>${esc(t("samples.nothing"))}</em>`}</td></tr>`).join("")}</tbody></table></section>`).join("");
    }

    drawCheckpoints() {
      const place = this.$("[data-pane=checkpoints]"), found = this.details.checkpoints || [];
      if (!found.length) return void (place.innerHTML = `<div class="st-empty"><b>${esc(t("checkpoints.empty"))}</b><p>${esc(t("checkpoints.empty.hint"))}</p></div>`);
      place.innerHTML = `<table class="st-table"><tbody>${found.map((c) => `<tr><th scope="row">${esc(t("checkpoints.step", { step: c.step }))}${c.best ? ` <span class="st-tag">${esc(t("checkpoints.best"))}</span>` : ""}</th>
        <td class="st-muted">${c.eval_loss == null ? "" : esc(t("checkpoints.loss", { value: studio.num(c.eval_loss) }))}</td>
        <td class="st-row-actions"><button type="button" class="st-btn st-small" data-chat="${esc(c.ref)}">${esc(t("action.chat"))}</button>
        <button type="button" class="st-btn st-small" data-from="${esc(c.ref)}">${esc(t("action.continue"))}</button></td></tr>`).join("")}</tbody></table>`;
      place.onclick = (event) => {
        const { chat, from } = event.target.dataset;
        if (chat) studio.open("chat", { models: [this.details.recipe.model, chat].filter(Boolean) });
        if (from) studio.startFrom(from);
      };
    }

    /** Past runs to lay over this one. */
    async compareControl() {
      const place = this.$(".st-chart-extra");
      place.innerHTML = `<label>${esc(t("chart.overlay"))} <select><option value="">${esc(t("chart.overlay.none"))}</option></select></label><span class="st-chips"></span>`;
      const select = place.querySelector("select");
      const draw = () => {
        place.querySelector(".st-chips").innerHTML = Object.entries(this.overlays).map(([id, o], i) => `<button type="button" class="st-chip st-c${(i % 5) + 1}" data-drop="${esc(id)}" title="${esc(t("chart.overlay.remove"))}">${esc(o.name)} ×</button>`).join("");
        this.charts.overlay(Object.values(this.overlays));
      };
      select.onfocus = async () => {
        const runs = await studio.call("runs", { limit: 100 }).catch(() => []);
        select.innerHTML = `<option value="">${esc(t("chart.overlay.none"))}</option>` + runs.filter((r) => r.id !== this.run && studio.trains(r.kind)).map((r) => `<option value="${esc(r.id)}">${esc(r.label)}</option>`).join("");
      };
      select.onchange = async () => {
        const id = select.value, name = select.selectedOptions[0].textContent;
        select.value = "";
        if (!id) return;
        try {
          const found = await studio.call("poll", { run: id, cursor: 0 });
          this.overlays[id] = { name, series: found.series };
          draw();
        } catch (error) { studio.failed(error); }
      };
      place.onclick = (event) => { if (event.target.dataset.drop) { delete this.overlays[event.target.dataset.drop]; draw(); } };
    }
  }
  studio.parts.live = (context) => new Live(context);

  /** Show a run, from anywhere: in the Runs tab, an evaluation in its own. */
  studio.openRun = (run, kind = "") => {
    if (["eval", "look"].includes(kind)) return studio.evalOpen(run);
    studio.setParam("tab", "runs");
    studio.show("runs");
    studio.setParam("run", run);
    if (studio.lives.runs) studio.lives.runs.show(run);
  };
})();
