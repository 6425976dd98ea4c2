/* The first model in five steps: ask the starter, see the data, train, watch, ask both. Each step is done by the person or, by a
   press, for them; what is done is seen on the page itself, so doing it in another way counts too. A reload finds the place again. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const KEY = "studio-tour", LOOK = 1000;
  const box = (selector) => document.querySelector(selector);
  const answers = () => [...document.querySelectorAll("#chat-view .ch-col")].filter((column) => column.querySelector(".ch-bot:not(.ch-live)") && !column.querySelector(".ch-live, .ch-busy")).length;
  const fresh = () => document.querySelectorAll("#chat-view .ch-col").length === 2 && !box("#chat-view .ch-msg");
  const type = (text) => { const prompt = box("#chat-prompt"); prompt.value = text; prompt.dispatchEvent(new Event("input")); };

  class Tour {
    constructor() {
      const kept = (() => { try { return JSON.parse(localStorage.getItem(KEY)) || {}; } catch { return {}; } })();
      Object.assign(this, { step: 0, open: false, since: 0, run: null, made: null }, kept);
      this.steps = [
        { name: "ask", at: "#chat-send", show: () => studio.open("chat", { models: ["starter", ""] }), ready: () => fresh(), fill: () => type(this.first.question), act: () => box("#chat-send").click(), done: () => answers() >= 1 },
        { name: "data", at: "#finetune-panel", show: () => studio.open("finetune", { values: this.first.values }), ready: () => box("#finetune-panel .st-token"), act: () => this.next(), done: async () => Boolean(await this.found()) },
        { name: "train", at: "#finetune-start", show: () => studio.show("finetune"), act: () => box("#finetune-start").click(), done: async () => Boolean(await this.found()) },
        { name: "watch", at: "#finetune-live [data-chart=loss]", show: () => studio.openRun(this.run), done: async () => this.ended() },
        { name: "compare", at: "#chat-send", show: () => studio.open("chat", { models: ["starter", this.made] }), ready: () => fresh(), fill: () => type(this.first.question), act: () => box("#chat-send").click(), done: () => answers() >= 2 },
      ];
      this.root = Object.assign(document.createElement("section"), { className: "st-tour", id: "st-tour", hidden: true });
      this.root.setAttribute("aria-label", t("tour.title"));
      document.body.append(this.root);
      this.root.addEventListener("click", (event) => this.click(event));
      setInterval(() => this.look(), LOOK);
      if (this.open) this.show();
    }

    keep() { localStorage.setItem(KEY, JSON.stringify({ step: this.step, open: this.open, since: this.since, run: this.run, made: this.made })); }

    async start() {
      if (this.step >= this.steps.length || !this.since) Object.assign(this, { step: 0, since: Date.now() / 1000, run: null, made: null });
      this.open = true;
      this.keep();
      await this.show();
      this.enter();
    }

    async show() {
      this.first ??= await studio.call("first_run").catch(() => null);
      if (!this.first) { this.open = false; return; }
      this.draw();
    }

    /** Bring the page to where the step is done. */
    async enter() {
      const step = this.steps[this.step], mine = this.step;
      if (!step) return;
      step.show();
      for (let i = 0; i < 40 && this.open && mine === this.step; i++) {
        await new Promise((resolve) => setTimeout(resolve, 150));
        const place = box(step.at);
        if (!place?.getClientRects().length || (step.ready && !step.ready())) continue;
        step.fill?.();
        place.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
        return;
      }
    }

    /** The run of this tour: the newest fine-tuning that was started since. */
    async found() {
      const rows = await studio.call("runs", { limit: 10, top: true }).catch(() => []);
      this.run = rows.find((row) => row.kind === "sft" && row.created >= this.since)?.id || null;
      return this.run;
    }

    async ended() {
      const run = await studio.call("run", { run: this.run }).catch(() => null);
      if (!run) return false;
      if (["failed", "stopped", "lost"].includes(run.state)) { Object.assign(this, { step: 2, since: Date.now() / 1000, run: null }); this.keep(); this.draw(t("tour.again")); return false; }
      const made = run.state === "succeeded" && run.artifacts.find((a) => ["adapter", "model"].includes(a.kind));
      this.made = made ? made.ref || `library:${made.id}` : null;
      return Boolean(made);
    }

    async look() {
      if (!this.open || this.busy || document.visibilityState !== "visible" || !this.first || !this.steps[this.step]) return;
      this.busy = true;
      try {
        const mine = this.step;
        if (await this.steps[mine].done() && mine === this.step && this.open) this.next();
      } finally { this.busy = false; }
      for (const marked of document.querySelectorAll(".st-tour-here")) if (marked !== box(this.steps[this.step]?.at || "#none")) marked.classList.remove("st-tour-here");
      if (this.open) box(this.steps[this.step]?.at || "#none")?.classList.add("st-tour-here");
    }

    next() {
      this.step += 1;
      this.keep();
      this.draw();
      if (this.step > 1) this.enter();  // the first answer is worth a moment: its step is left by hand
    }

    draw(note = "") {
      this.root.hidden = !this.open;
      if (!this.open) { document.querySelectorAll(".st-tour-here").forEach((one) => one.classList.remove("st-tour-here")); return; }
      const over = this.step >= this.steps.length, now = this.steps[this.step];
      this.root.innerHTML = `<header><h2>${esc(t(over ? "tour.over" : "tour.title"))}</h2><button type="button" class="st-icon" data-close aria-label="${esc(t("action.close"))}">×</button></header>
        <ol>${this.steps.map(({ name }, i) => `<li class="${i < this.step ? "st-done" : i === this.step ? "st-now" : ""}" ${i === this.step ? 'aria-current="step"' : ""}><b>${esc(t(`tour.${name}`))}</b>${i === this.step ? `<p>${esc(t(`tour.${name}.about`, { question: this.first.question }))}</p>` : ""}</li>`).join("")}</ol>
        ${note ? `<p class="st-tour-note" role="status">${esc(note)}</p>` : ""}
        ${over ? `<p>${esc(t("tour.over.about"))}</p><div class="st-actions"><button type="button" class="st-btn st-primary" data-end>${esc(t("tour.end"))}</button><button type="button" class="st-btn" data-restart>${esc(t("tour.restart"))}</button></div>`
        : `<div class="st-actions">${now.act ? `<button type="button" class="st-btn st-primary" data-act>${esc(t(`tour.${now.name}.act`))}</button>` : ""}<button type="button" class="st-btn${now.act ? "" : " st-primary"}" data-go>${esc(t("tour.go"))}</button></div>`}`;
    }

    click(event) {
      const button = event.target.closest("button"), step = this.steps[this.step];
      if (!button) return;
      if ("close" in button.dataset || "end" in button.dataset) { this.open = false; this.keep(); this.draw(); return; }
      if ("restart" in button.dataset) { this.since = 0; this.start(); return; }
      if ("go" in button.dataset) { this.enter(); return; }
      const here = box(step.at)?.getClientRects().length && (!step.ready || step.ready());
      (here ? Promise.resolve(step.fill?.()) : this.enter()).then(() => step === this.steps[this.step] && step.act());
    }
  }

  let tour = null;
  const begin = () => { if (!tour && document.body) tour = new Tour(); };
  /** Show the first steps, where they were left or from the beginning. */
  studio.tour = () => { begin(); tour.start(); };
  window.addEventListener("studio:tab", begin, { once: true });
})();
