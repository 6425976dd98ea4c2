/* The bar at the bottom: what runs now, how far it is, what waits behind it. Always in sight. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;

  studio.followed = new Set();  // runs whose end is told elsewhere on the page

  class Dock {
    constructor({ element, root }) {
      Object.assign(this, { root, run: null, cursor: 0, loss: [], open: false });
      root.innerHTML = `<section class="st-dock" aria-label="${esc(t("dock.title"))}"><div class="st-dock-queue" id="st-queue" hidden></div><div class="st-dock-bar"></div></section>`;
      this.bar = root.querySelector(".st-dock-bar");
      this.list = root.querySelector(".st-dock-queue");
      this.tick = studio.poll(element, 1500, () => this.poll());
      window.addEventListener("studio:runs", () => this.tick());
      root.addEventListener("click", (event) => this.click(event));
    }

    async poll() {
      let found;
      try { found = await studio.call("dock", { run: this.run, cursor: this.cursor }); }
      catch (error) {
        if (error.offline && (this.missed = (this.missed || 0) + 1) > 2) this.bar.innerHTML = `<span class="st-dock-idle st-is-warn" role="status">${esc(t("app.offline"))}</span>`;
        return;
      }
      this.missed = 0;
      const first = found.active[0];
      if (!first) { this.run = null; this.cursor = 0; this.loss = []; this.progress = null; }
      else {
        if (first.id !== this.run || found.news.reset) { this.loss = []; this.progress = null; }
        this.run = first.id;
        this.cursor = found.news.cursor;
        this.loss.push(...found.news.loss.map(([, v]) => v));
        this.loss = this.loss.slice(-60);
        this.progress = found.news.progress || this.progress;
      }
      this.tell(found);
      this.draw(found);
    }

    /** Say aloud when a run ends, wherever the person is on the page. */
    tell({ active, last }) {
      if (this.watched && last && this.watched === last.id && !active.some((r) => r.id === last.id)) {
        const kind = last.state === "succeeded" ? "good" : last.state === "stopped" ? "info" : "bad";
        if (!studio.followed.has(last.id)) studio.toast(t(`dock.${last.state}`, { name: last.label }), kind, last.reason || "");
        window.dispatchEvent(new CustomEvent("studio:runs-ended", { detail: last.id }));
        const tab = studio.tabNow();
        if (tab) studio.send(`refresh_${tab}`);
      }
      this.watched = active[0]?.id || null;
    }

    draw({ active, queue, last }) {
      const first = active[0], waiting = queue.length + active.length - 1;
      const more = queue.length || active.length > 1
        ? `<button type="button" class="st-btn st-small" data-queue aria-expanded="${this.open}" aria-controls="st-queue">${esc(t("dock.waiting", { n: Math.max(waiting, queue.length) }))}</button>` : "";
      let html;
      if (!first)
        html = `<span class="st-dock-idle">${last ? `${studio.pill(last.state)} <button type="button" class="st-link" data-open="${esc(last.id)}" data-kind="${esc(last.kind)}">${esc(last.label)}</button> <span class="st-muted">${esc(studio.ago(last.ended))}</span>` : `<span class="st-muted">${esc(t("dock.idle"))}</span> <button type="button" class="st-btn st-small" data-tour>${esc(t("tour.open"))}</button>`}</span>${more}`;
      else {
        const p = this.progress, share = p?.total ? Math.min(1, p.done / p.total) : 0;
        const eta = first.state === "running" && p?.eta != null ? t("dock.left", { time: studio.duration(p.eta) }) : t(`state.${first.state}`);
        html = `<button type="button" class="st-dock-name st-link" data-open="${esc(first.id)}" data-kind="${esc(first.kind)}" title="${esc(first.label)}">${esc(first.label)}</button>
          ${studio.pill(first.state)}
          <div class="st-bar${first.state === "starting" ? " st-indeterminate" : ""}" role="progressbar" aria-label="${esc(t("live.progress"))}" aria-valuenow="${Math.round(share * 100)}" aria-valuemin="0" aria-valuemax="100"><i style="width:${(share * 100).toFixed(1)}%"></i></div>
          <span class="st-dock-num">${p?.total ? `${studio.num(first.kind === "quantize" ? Math.floor(p.done) : p.done)}/${studio.num(p.total)}` : ""}</span><span class="st-dock-eta st-muted">${esc(eta)}</span>
          <span class="st-dock-loss">${this.loss.length ? `${esc(t("live.loss"))} <b>${studio.num(this.loss.at(-1))}</b>` : ""}</span>${studio.spark(this.loss)}
          <span class="st-dock-actions">${more}<button type="button" class="st-btn st-small" data-open="${esc(first.id)}" data-kind="${esc(first.kind)}">${esc(t("action.open"))}</button>
          <button type="button" class="st-btn st-small st-danger" data-stop="${esc(first.id)}" ${first.state === "stopping" ? "disabled" : ""}>${esc(t("live.stop"))}</button></span>`;
      }
      if (html !== this.shown) {
        const focused = document.activeElement?.closest?.(".st-dock-bar") && Object.entries(document.activeElement.dataset)[0];
        this.bar.innerHTML = this.shown = html;
        if (focused) this.bar.querySelector(`[data-${focused[0]}="${focused[1]}"]`)?.focus();
      }
      this.drawQueue(active.slice(1), queue);
    }

    drawQueue(others, queue) {
      this.list.hidden = !this.open || !(queue.length || others.length);
      if (this.list.hidden) return;
      const html = `<h2>${esc(t("dock.queue"))}</h2><ol>${others.map((run) => `<li><button type="button" class="st-link" data-open="${esc(run.id)}" data-kind="${esc(run.kind)}">${esc(run.label)}</button>${studio.pill(run.state)}
          <span class="st-row-actions"><button type="button" class="st-btn st-small st-danger" data-stop="${esc(run.id)}">${esc(t("live.stop"))}</button></span></li>`).join("")}${queue.map((run, i) => `<li><button type="button" class="st-link" data-open="${esc(run.id)}" data-kind="${esc(run.kind)}">${esc(run.label)}</button>${studio.pill(run.state)}
          <span class="st-row-actions"><button type="button" class="st-icon" data-up="${esc(run.id)}" data-before="${esc(queue[i - 1]?.id || "")}" ${i ? "" : "disabled"} aria-label="${esc(t("dock.up", { name: run.label }))}">↑</button>
          <button type="button" class="st-icon" data-down="${esc(run.id)}" data-before="${esc(queue[i + 2]?.id || "")}" ${i < queue.length - 1 ? "" : "disabled"} aria-label="${esc(t("dock.down", { name: run.label }))}">↓</button>
          <button type="button" class="st-btn st-small" data-stop="${esc(run.id)}">${esc(t("action.cancel_run"))}</button></span></li>`).join("")}</ol>`;
      if (html !== this.queued) this.list.innerHTML = this.queued = html;
    }

    async click(event) {
      const button = event.target.closest("button");
      if (!button) return;
      const { open, stop, up, down, before } = button.dataset;
      try {
        if ("tour" in button.dataset) return studio.tour();
        if ("queue" in button.dataset) { this.open = !this.open; this.shown = ""; }
        else if (open) return button.dataset.kind === "data" ? studio.open("data", { run: open }) : studio.openRun(open, button.dataset.kind);
        else if (stop) { button.disabled = true; await studio.call("stop", { run: stop }); }
        else if (up || down) await studio.call("reorder", { run: up || down, before: before || null });
        window.dispatchEvent(new CustomEvent("studio:runs"));
      } catch (error) { studio.failed(error); }
    }
  }
  studio.parts.dock = (context) => new Dock(context);

  /* The slim header: name, workspace, how busy the machine is, light or dark. */
  studio.parts.header = ({ element, root, props }) => {
    root.innerHTML = `<header class="st-header"><a class="st-logo" href="./"><img src="studio/icons/favicon.svg" alt="" width="22" height="22"><span>${esc(t("app.name"))}</span></a>
      <span class="st-push"></span><button type="button" class="st-workspace" title="${esc(t("header.workspace", { path: props.workspace }))}"><bdi>${esc(props.workspace)}</bdi></button>
      <div class="st-meters" aria-label="${esc(t("header.machine"))}"></div>
      ${studio.languages.length > 1 ? `<select class="st-language" aria-label="${esc(t("header.language"))}" title="${esc(t("header.language"))}">${studio.languages.map(([code, name]) => `<option value="${esc(code)}" ${code === studio.language ? "selected" : ""}>${esc(name)}</option>`).join("")}</select>` : ""}
      <button type="button" class="st-icon st-first" aria-label="${esc(t("tour.open"))}" title="${esc(t("tour.open"))}"><svg width="16" height="16" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" aria-hidden="true"><circle cx="8" cy="8" r="6.2"/><path d="M6.2 6.3a1.9 1.9 0 1 1 2.6 1.8c-.5.2-.8.5-.8 1v.3"/><path d="M8 11.6v.1"/></svg></button>
      <button type="button" class="st-icon st-theme" aria-label="${esc(t("header.theme"))}" title="${esc(t("header.theme"))}"><svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" stroke-width="1.5"/><path d="M8 1.8a6.2 6.2 0 0 1 0 12.4z" fill="currentColor"/></svg></button></header>`;
    root.querySelector(".st-first").onclick = () => studio.tour();
    root.querySelector(".st-theme").onclick = studio.toggleTheme;
    root.querySelector(".st-language")?.addEventListener("change", ({ target }) => studio.speak(target.value));
    root.querySelector(".st-workspace").onclick = () => { studio.copy(props.workspace); studio.toast(t("header.copied")); };
    const meters = root.querySelector(".st-meters");
    const meter = (label, share, detail, full = 0.92) => `<div class="st-meter${share > full ? " st-hot" : ""}" title="${esc(detail)}"><span>${esc(label)}</span><i role="meter" aria-label="${esc(detail)}" aria-valuenow="${Math.round(share * 100)}" aria-valuemin="0" aria-valuemax="100"><b style="width:${Math.min(100, share * 100).toFixed(0)}%"></b></i></div>`;
    studio.poll(element, 5000, async () => {
      const now = await studio.call("hardware").catch(() => null);
      if (!now) return;
      const of = (x) => t("header.of", { used: studio.bytes(x.used), total: studio.bytes(x.total) });
      const percent = (now.cpu.percent || 0) / 100;
      meters.innerHTML = meter(t("header.cpu"), percent, t("header.cpu.detail", { percent: Math.round(percent * 100), cores: now.cpu.cores }), 2)
        + meter(t("header.memory"), now.memory.used / now.memory.total, t("header.memory.detail", { of: of(now.memory) }))
        + meter(t("header.disk"), now.disk.used / now.disk.total, t("header.disk.detail", { free: studio.bytes(now.disk.free) }))
        + (now.gpus || []).map((g, i) => meter(now.gpus.length > 1 ? `${t("header.gpu")} ${i}` : t("header.gpu"), g.total ? g.used / g.total : (g.percent || 0) / 100, `${g.name}: ${g.total ? of(g) : ""}${g.percent == null ? "" : `, ${g.percent} %`}`)).join("");
    });
  };
})();
