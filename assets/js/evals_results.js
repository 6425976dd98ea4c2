/* One evaluation: its progress while it goes on, then scores, differences and answers. Runs stand on the left. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const RESUMABLE = ["failed", "stopped", "lost"], COLUMNS = 4; // of the chat


  class Results {
    constructor(place) {
      Object.assign(this, { place, run: "", runs: null, details: null, results: null, filter: "" });
      place.innerHTML = `<div class="ev-two"><aside class="ev-rail" id="eval-rail" aria-label="${esc(t("eval.runs"))}"><div class="ev-rail-top"><input type="search" placeholder="${esc(t("eval.runs.search"))}" aria-label="${esc(t("eval.runs.search"))}"></div><nav class="ev-list" aria-label="${esc(t("eval.runs"))}"></nav></aside>
        <div class="ev-main"><button type="button" class="st-icon ev-toggle" aria-controls="eval-rail" aria-expanded="false" aria-label="${esc(t("eval.runs"))}">${studio.dataParts.icons.list}</button>
          <div class="ev-none" hidden></div>
          <div class="ev-run" hidden><header class="ev-bar"><div class="ev-name"><h1></h1><p class="st-muted"></p></div><div class="st-actions ev-acts"></div></header>
            <section class="st-card ev-live" aria-label="${esc(t("live.progress"))}" hidden></section><ul class="st-findings ev-warnings"></ul>
            <section class="ev-part ev-scores" hidden></section><div class="ev-part ev-special" hidden></div><section class="ev-part ev-answers" hidden></section></div></div></div>`;
      this.$ = (selector) => place.querySelector(selector);
      this.scores = new studio.EvalScores(this, this.$(".ev-scores"));
      this.answers = new studio.EvalAnswers(this, this.$(".ev-answers"));
      this.$(".ev-rail input").oninput = (event) => { this.filter = event.target.value.toLowerCase(); this.drawList(); };
      this.$(".ev-list").onclick = (event) => { const run = event.target.closest("[data-run]")?.dataset.run; if (run) { this.rail(false); this.open(run); } };
      this.$(".ev-toggle").onclick = () => this.rail(!this.$(".ev-two").classList.contains("ev-rail-open"));
      this.$(".ev-main").addEventListener("pointerdown", (event) => event.target.closest(".ev-toggle") || this.rail(false));
      this.$(".ev-acts").onclick = (event) => this.act(event.target.closest("[data-do]"));
      this.$(".ev-live").onclick = (event) => this.act(event.target.closest("[data-do]"));
      this.$(".ev-none").onclick = (event) => event.target.closest("[data-go]") && studio.evalGo("start");
      studio.poll(place, 1000, () => this.poll());
      this.beat = 0;
    }

    rail(open) { this.$(".ev-two").classList.toggle("ev-rail-open", open); this.$(".ev-toggle").setAttribute("aria-expanded", String(open)); }

    /** Shown again, or for the first time: a run of the address, the one that was open, or the newest. */
    async show(detail) {
      const list = this.list().catch(() => null);
      if (detail.run && detail.run !== this.run) return this.open(detail.run, detail);
      if (this.run) return this.address();
      await list;
      if (!this.run && this.runs?.length) this.open(this.runs[0].id, detail); else if (this.runs) this.drawNone();
    }

    async list() {
      this.runs = await studio.call("eval_runs");
      this.drawList();
    }

    drawNone() {
      const none = !this.run;
      this.$(".ev-none").hidden = !none;
      this.$(".ev-run").hidden = none;
      if (none) this.$(".ev-none").innerHTML = `<div class="st-empty"><b>${esc(t("eval.results.none"))}</b><p>${esc(t("eval.results.none.hint"))}</p><button type="button" class="st-btn st-primary" data-go>${esc(t("eval.view.start"))}</button></div>`;
    }

    drawList() {
      if (!this.runs) return;
      const shown = this.runs.filter((run) => !this.filter || `${run.label} ${run.id} ${run.method} ${run.models.join(" ")} ${run.tasks.join(" ")}`.toLowerCase().includes(this.filter));
      const html = shown.length ? shown.map((run) => `<button type="button" class="ev-item${run.id === this.run ? " ev-now" : ""}" data-run="${esc(run.id)}" ${run.id === this.run ? 'aria-current="true"' : ""}><b>${esc(run.label)}</b><small>${run.state !== "succeeded" ? studio.pill(run.state) : ""}<span>${esc([studio.evalCount("model", run.models.length), run.tasks.length ? studio.evalCount("task", run.tasks.length) : "", studio.ago(run.ended || run.created)].filter(Boolean).join(" · "))}</span></small></button>`).join("")
        : `<p class="dt-none">${esc(t(this.runs.length ? "eval.runs.none_match" : "eval.recent.none"))}</p>`;
      if (html !== this.listed) this.$(".ev-list").innerHTML = this.listed = html;
    }

    /** Show a run; the filters of its answers come from the address, or begin anew. */
    open(run, detail = {}) {
      Object.assign(this, { run, details: null, results: null, cursor: 0, state: null, settled: false, news: {}, log: "", drawn: "" });
      this.place.dataset.run = run;
      this.$(".ev-warnings").innerHTML = "";
      this.$(".ev-none").hidden = true;
      this.$(".ev-run").hidden = false;
      for (const part of [".ev-live", ".ev-scores", ".ev-special", ".ev-answers"]) this.$(part).hidden = true;
      this.$(".ev-name h1").textContent = "…";
      this.$(".ev-name p").textContent = this.$(".ev-acts").innerHTML = "";
      this.scores.reset(detail);
      this.answers.reset(detail);
      this.$(".ev-main").scrollTop = 0;
      this.drawList();
      this.address();
      this.poll(true);
    }

    address() { studio.evalAddress({ run: this.run, ...this.scores.address(), ...this.answers.address() }); }

    async poll(now = false) {
      if (this.beat++ % 5 === 4) this.list().catch(() => {});
      if (!this.run || this.busy && !now || this.settled) return;
      const run = this.run;
      this.busy = true;
      try {
        const news = await studio.call("poll", { run, cursor: this.cursor });
        if (run !== this.run) return;
        await this.take(news);
      } catch (error) {
        if (run !== this.run || error.offline) return;
        this.settled = true;
        this.$(".ev-run").hidden = true;
        this.$(".ev-none").hidden = false;
        this.$(".ev-none").innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`;
      } finally { this.busy = false; }
    }

    async take(news) {
      const run = this.run, changed = news.state !== this.state, pairs = Object.keys(news.series || {}).length > 0;
      if (news.reset) { this.log = ""; this.$(".ev-warnings").innerHTML = ""; }
      this.cursor = news.cursor;
      this.state = news.state;
      this.news = { ...news, progress: news.progress || (news.reset ? null : this.news.progress) };
      this.log = (this.log + (news.log || "")).slice(-40000);
      for (const warning of news.warnings || []) this.$(".ev-warnings").insertAdjacentHTML("beforeend", `<li class="st-finding st-level-warning"><b>${esc(warning.message)}</b>${warning.hint ? `<span>${esc(warning.hint)}</span>` : ""}</li>`);
      if (changed || !this.details) {
        const details = await studio.call("run", { run });
        if (run !== this.run) return;
        this.details = details;
        this.head();
        if (changed && this.drawn) studio.say(t(`state.${this.state}`));
      }
      this.live();
      if (changed || pairs || !this.results) await this.look();
      this.settled = !studio.active(this.state);
      if (changed) this.list().catch(() => {});
    }

    async look() {
      const run = this.run, results = await studio.call("eval_results", { run });
      if (run !== this.run) return;
      const same = JSON.stringify(results) === this.drawn;
      this.drawn = JSON.stringify(results);
      this.results = results;
      if (same) return;
      this.head();
      this.scores.draw(this.details, results);
      this.special();
      this.answers.draw(results);
    }

    /** What a method draws of its own under the scores. */
    special() {
      const place = this.$(".ev-special"), [kind, method] = (this.results.method || `${this.details.kind}/${this.details.method}`).split("/"), draw = studio.evalPanelOf(kind, method);
      place.hidden = !draw || !this.results.whole;
      if (place.hidden) return void (place.innerHTML = "");
      place.innerHTML = "";
      const inside = document.createElement("div");
      place.append(inside);
      try { draw(inside, { run: this.details, results: this.results }); }
      catch (error) { console.error(error); inside.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(t("eval.broken"))}</b><p>${esc(error.message)}</p></div>`; }
      place.hidden = !inside.innerHTML;
    }

    head() {
      const { details: run, results } = this;
      this.$(".ev-name h1").textContent = run.label;
      const time = run.started ? studio.duration((run.ended || Date.now() / 1000) - run.started) : "";
      const facts = [studio.method(run), results?.models?.length ? studio.evalCount("model", results.models.length) : "", results && Object.keys(results.tasks).length ? studio.evalCount("task", Object.keys(results.tasks).length) : "", studio.ago(run.created), time, run.place];
      this.$(".ev-name p").textContent = facts.filter(Boolean).join(" · ");
      const button = (act, key, more = "") => `<button type="button" class="st-btn ${more}" data-do="${act}">${esc(t(key))}</button>`;
      const going = studio.active(run.state);
      this.$(".ev-acts").innerHTML = (run.parent ? button("parent", "eval.parent") : "") + (results?.models?.length && !going ? button("chat", "eval.chat") : "") + (going ? "" : button("again", "eval.again")) + button("more", "eval.details")
        + (going ? "" : `<button type="button" class="st-icon" data-do="delete" aria-label="${esc(t("runs.delete", { name: run.label }))}"><svg width="14" height="14" viewBox="0 0 16 16" aria-hidden="true"><path d="M3 4.5h10M6.5 4V2.8h3V4m-5 .5.6 8.7h5.8l.6-8.7" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linecap="round"/></svg></button>`);
    }

    live() {
      const place = this.$(".ev-live"), { progress, reason, hint, offer } = this.news, state = this.state, going = studio.active(state);
      place.hidden = state === "succeeded";
      if (place.hidden) return;
      const share = progress?.total ? Math.min(1, progress.done / progress.total) : 0;
      const eta = state === "running" && progress?.eta != null ? t("live.eta", { time: studio.duration(progress.eta) }) : going && state !== "running" ? t(`live.${state}`) : "";
      const last = this.log.trimEnd().split("\n").at(-1) || "";
      const count = progress?.total ? (Number.isInteger(progress.done) && Number.isInteger(progress.total) && progress.total > 20 ? t("eval.progress", { done: studio.num(progress.done), total: studio.num(progress.total) }) : t("eval.progress.share", { n: Math.floor(100 * share) })) : "";
      const bad = ["failed", "lost"].includes(state);
      place.className = `st-card ev-live${bad ? " ev-bad" : state === "stopped" ? " ev-stopped" : ""}`;
      const html = `<div class="ev-live-line">${studio.pill(state)}<span>${esc(count)}</span><span class="st-push">${esc(eta)}</span>
        ${going && state !== "stopping" ? `<button type="button" class="st-btn st-small st-danger" data-do="stop">${esc(t(state === "queued" ? "action.cancel_run" : "live.stop"))}</button>` : ""}</div>
        ${going ? `<div class="st-bar${["queued", "starting"].includes(state) ? " st-indeterminate" : ""}" role="progressbar" aria-label="${esc(t("live.progress"))}" aria-valuemin="0" aria-valuemax="100" aria-valuenow="${Math.round(share * 100)}"><i style="width:${(share * 100).toFixed(1)}%"></i></div><p class="ev-log">${esc(last.slice(0, 300))}</p>`
        : `<div class="ev-why"><div><b>${esc(reason || t(`live.${state}`))}</b><p>${esc(hint || (state === "stopped" ? t("eval.stopped.hint") : t(`live.${state}.hint`)))}</p></div>${offer ? `<button type="button" class="st-btn st-primary" data-do="offer">${esc(t("live.offer", { change: studio.offerText(offer) }))}</button>` : ""}<button type="button" class="st-btn${offer ? "" : " st-primary"}" data-do="resume">${esc(t("live.resume"))}</button></div>`}`;
      if (html !== this.lived) { const held = place.contains(document.activeElement) && document.activeElement.dataset.do; place.innerHTML = this.lived = html; if (held) place.querySelector(`[data-do="${held}"]`)?.focus(); }
    }

    async act(button) {
      const what = button?.dataset.do, { run, details, results } = this;
      if (!what) return;
      try {
        if (what === "stop") { button.disabled = true; await studio.call("stop", { run }); }
        if (what === "resume" || what === "offer") { await studio.call("resume", { run, ...(what === "offer" ? { values: this.news.offer } : {}) }); Object.assign(this, { cursor: 0, state: null, settled: false }); }
        if (what === "again") return studio.evalStart({ ...details.recipe, kind: details.kind, method: details.method });
        if (what === "parent") return studio.openRun(details.parent);
        if (what === "chat") return studio.open("chat", { models: results.models.slice(0, COLUMNS).map((m) => m.ref) });
        if (what === "more") return this.more();
        if (what === "delete") {
          if (!(await studio.ask(t("runs.delete.title"), `<p>${esc(t("runs.delete.body", { name: details.label }))}</p>`, t("action.delete"), true))) return;
          await studio.call("remove", { run });
          this.run = this.place.dataset.run = "";
          await this.list();
          if (this.runs.length) this.open(this.runs[0].id); else { this.drawNone(); this.address(); }
        }
        window.dispatchEvent(new CustomEvent("studio:runs"));
        await this.poll();
      } catch (error) { studio.failed(error); if (button.isConnected) button.disabled = false; }
    }

    /** What was asked for, what was said, and the same in Python. */
    async more() {
      const { details: run, results } = this, rows = Object.entries(run.recipe || {}).filter(([name]) => name !== "schema_version");
      const text = (v) => (typeof v === "object" ? JSON.stringify(v) : v === "" ? "–" : v);
      const facts = Object.entries(results?.facts || {}).filter(([, v]) => ["number", "string", "boolean"].includes(typeof v));
      const table = (list) => `<table class="st-table"><tbody>${list.map(([name, v]) => `<tr><th scope="row">${esc(name.replaceAll("_", " "))}</th><td>${esc(typeof v === "number" ? studio.num(v) : text(v))}</td></tr>`).join("")}</tbody></table>`;
      let script = "";
      try { script = await studio.call("run_script", { run: run.id }); } catch { /* not every method can be written as a script */ }
      const done = studio.ask(run.label, `<p class="st-muted">${esc(run.id)}${run.dir ? ` · <code>${esc(run.dir)}</code>` : ""}</p>${facts.length ? `<h3>${esc(t("eval.details.facts"))}</h3>${table(facts)}` : ""}<h3>${esc(t("live.recipe"))}</h3>${table(rows)}
        <h3>${esc(t("live.log"))}</h3><pre class="st-code ev-said">${esc((this.log || run.log || "").split("\n").slice(-200).join("\n"))}</pre>${script ? `<h3>${esc(t("live.python.title"))}</h3><pre class="st-code">${esc(script)}</pre>` : ""}`);
      const dialog = [...document.querySelectorAll("dialog.st-dialog")].at(-1);
      dialog.classList.add("dt-dialog");
      dialog.querySelector(".ev-said").scrollTop = 1e9;
      await done;
    }
  }

  let view = null;
  studio.evalView("results", {
    order: 10,
    shown(place, detail) { view ??= new Results(place); view.show(detail).catch(studio.failed); },
    hidden() { view?.rail(false); },
  });
})();
