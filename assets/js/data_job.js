/* The dataset job that goes on, or the one that ended and wants an answer: progress, rate, last words, stop, resume. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const { num } = studio.dataParts;
  const LOOK = 3;  // seconds between looks for a job that somebody else started

  class Job {
    constructor(frame, place) {
      Object.assign(this, { frame, place, id: null, waiting: new Map(), ticks: 0 });
      place.addEventListener("click", (event) => this.click(event));
      const asked = studio.param("job");
      if (asked) this.follow(asked);
      this.tick = studio.poll(frame.element, 1000, () => this.poll());
    }

    /** Show a run here. The promise resolves to it when it is over. */
    follow(id) {
      Object.assign(this, { id, cursor: 0, run: null, state: null, progress: null, log: "", marks: [], settled: false, seen: false, files: null, published: "" });
      studio.followed.add(id);
      this.here();
      const over = new Promise((resolve) => this.waiting.set(id, resolve));
      queueMicrotask(() => this.poll());
      return over;
    }

    here() { if (studio.tabNow() === "data") studio.setParam("job", this.id); }

    drop() {
      this.id = null;
      this.here();
      this.place.hidden = true;
      this.place.innerHTML = this.shown = "";
    }

    async poll() {
      if (this.busy) return;
      this.busy = true;
      try {
        if (this.id && !this.settled) await this.news();
        else if (!this.id && this.ticks++ % LOOK === 0) await this.search();
      } finally { this.busy = false; }
    }

    async search() {
      const found = (await studio.call("data_jobs")).filter((r) => studio.active(r.state));
      if (found.length && !this.id) this.follow(found[0].id);
    }

    async news() {
      const id = this.id;
      let news;
      try { news = await studio.call("poll", { run: id, cursor: this.cursor }); }
      catch (error) { if (!error.offline && id === this.id) this.drop(); return; }
      if (id !== this.id) return;
      if (news.reset) { this.progress = null; this.log = ""; this.marks = []; }
      this.cursor = news.cursor;
      if (news.progress) {
        this.progress = news.progress;
        const last = this.marks.at(-1);
        if (last && news.progress.done < last[1]) this.marks = [];
        this.marks = [...this.marks, [performance.now() / 1000, news.progress.done]].slice(-12);
      }
      const lines = (news.log || "").split("\n").filter((line) => line.trim());
      if (lines.length) this.log = lines.at(-1);
      const over = !studio.active(news.state);
      this.seen ||= !over;  // else it had ended before this page looked
      if (!this.run || over || news.state !== this.state) this.run = await studio.call("run", { run: id });
      if (id !== this.id) return;
      this.state = over ? this.run.state : news.state;
      if (over) { this.settled = true; this.ended(); }
      this.draw();
    }

    ended() {
      const run = this.run;
      window.dispatchEvent(new CustomEvent("studio:runs"));
      studio.say(`${this.title()}: ${t(`state.${this.state}`)}`);
      this.waiting.get(run.id)?.(run);
      this.waiting.delete(run.id);
      if (this.state !== "succeeded") return;
      const made = studio.madeDataset(run), files = (run.artifacts || []).filter((a) => a.kind === "file");
      if (files.length) return this.offer(files);
      if (run.kind === "publish") { this.published = run.summary?.url || ""; return; }
      this.drop();
      const hash = run.kind === "data" && !run.summary?.report && run.summary?.hash;  // a report makes no rows
      if (made) this.frame.made(made, run); else if (hash) this.frame.already(hash); else this.frame.refresh();
    }

    /** Written files, for the browser to save; a single one is saved at once. */
    async offer(files) {
      try { this.files = (await Promise.all(files.map((file) => studio.call("data_file", { id: file.id })))).flat(); } catch (error) { this.files = []; studio.failed(error); }
      this.draw();
      if (this.files.length === 1 && (this.seen || this.asked === this.id)) this.place.querySelector("a[download]")?.click();
    }

    title() { return this.run ? this.frame.state.steps.find((s) => s.name === this.run.method)?.title || studio.method(this.run) : ""; }

    rate() {
      const first = this.marks[0], last = this.marks.at(-1);
      if (!first || last[0] - first[0] < 1.5 || this.progress.total < 50) return "";
      const rate = (last[1] - first[1]) / (last[0] - first[0]);
      return rate > 0 ? t("data.job.rate", { n: rate < 10 ? rate.toFixed(1) : num(rate) }) : "";
    }

    draw() {
      if (!this.id || !this.run) return;
      const { state, progress: p, run } = this, active = studio.active(state), share = p?.total ? Math.min(1, p.done / p.total) : state === "succeeded" ? 1 : 0;
      const button = (act, key, kind = "") => `<button type="button" class="st-btn st-small ${kind}" data-job="${act}">${esc(t(key))}</button>`;
      const count = p?.total >= 2 ? t("data.job.count", { done: num(p.done), total: num(p.total) }) : p?.total ? `${Math.round(share * 100)} %` : "";
      const eta = state === "running" && p?.eta != null && p.eta > 0 ? t("live.eta", { time: studio.duration(p.eta) }) : state === "queued" ? t("live.queued") : state === "starting" ? t("live.starting") : state === "stopping" ? t("data.job.stopping") : "";
      let body = "", acts = "";
      if (active) {
        body = `<div class="st-bar${["queued", "starting"].includes(state) || !p?.total ? " st-indeterminate" : ""}" role="progressbar" aria-label="${esc(t("live.progress"))}" aria-valuenow="${Math.round(share * 100)}" aria-valuemin="0" aria-valuemax="100"><i style="width:${(share * 100).toFixed(1)}%"></i></div>
          <p class="dt-job-line"><span>${[count, state === "running" ? this.rate() : "", eta].filter(Boolean).map(esc).join(" · ")}</span><span class="dt-log" title="${esc(this.log)}">${esc(this.log)}</span></p>`;
        acts = state === "stopping" ? "" : button("stop", state === "queued" ? "action.cancel_run" : "live.stop", "st-danger");
      } else if (state === "succeeded") {
        if (run.kind !== "publish" && !this.files) return;  // its files are on the way
        body = this.files ? `<p>${this.files.map((f) => `<a class="st-btn st-small st-primary" download href="${esc(f.url)}">${esc(t("data.job.download", { name: f.name }))}</a> <span class="st-muted">${esc(studio.bytes(f.size))}</span>`).join(" ")}</p>`
          : `<p>${esc(t("data.job.published"))} ${this.published ? `<a href="${esc(this.published)}" target="_blank" rel="noopener noreferrer">${esc(this.published)}</a>` : ""}</p>`;
        acts = button("drop", "action.dismiss");
      } else {
        body = `<p><b>${esc(run.reason || t(`live.${state}`))}</b>${run.hint || state === "stopped" ? ` <span class="st-muted">${esc(run.hint || t("data.job.stopped.hint"))}</span>` : ""}</p>`;
        acts = button("resume", "live.resume", "st-primary") + (state === "failed" && run.kind === "data" ? button("change", "data.job.change") : "") + button("drop", "action.dismiss");
      }
      const html = `<header>${studio.pill(state)}<b>${esc(run.label.startsWith(this.title()) ? run.label : this.title())}</b>${run.label.startsWith(this.title()) ? "" : `<span class="st-muted dt-job-name">${esc(run.label)}</span>`}<span class="st-push st-actions">${acts}</span></header>${body}`;
      this.place.hidden = false;
      this.place.className = `dt-job st-card dt-job-${state}`;
      if (html !== this.shown) this.place.innerHTML = this.shown = html;
    }

    async click(event) {
      const act = event.target.closest("[data-job]")?.dataset.job;
      if (!act) return;
      if (act === "drop") return this.drop();
      if (act === "change") return this.change();
      event.target.disabled = true;
      try {
        await studio.call(act, { run: this.id });
        const waiting = this.waiting.get(this.id);
        if (act === "resume") { this.follow(this.id); if (waiting) this.waiting.set(this.id, waiting); }
        window.dispatchEvent(new CustomEvent("studio:runs"));
        this.poll();
      } catch (error) { studio.failed(error); event.target.disabled = false; }
    }

    /** A run that was refused on its way: its values again, with the reason at the field. */
    change() {
      const { recipe, reason, hint, field, method } = this.run, message = `${reason || ""} ${hint || ""}`.trim();
      const number = method === "pipeline" && /^Step (\d+)/.exec(reason || ""), values = { ...recipe };
      if (!number) return this.frame.startStep(values, { errors: { [field || "recipe"]: message } });
      const i = Number(number[1]) - 1;
      this.frame.startStep({ kind: "data", ...recipe.steps[i], dataset: recipe.dataset }, {
        errors: { recipe: message },
        wrap: (filled) => { const { dataset, name, kind, ...rest } = filled; return { ...recipe, steps: recipe.steps.map((s, n) => (n === i ? { method: s.method, ...rest } : s)) }; },
      });
    }
  }

  /** The dataset a run ends with, not the stages on its way. */
  studio.madeDataset = (run) => (run.artifacts || []).find((a) => a.kind === "dataset" && a.meta?.stage !== "step");

  studio.DataJob = Job;
})();
