/* Roll-outs: what the model answered while it was being rewarded, what each answer got, and why. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const KEPT = 60; // as many as the core keeps
  const ORDERS = { newest: (a, b) => b.step - a.step, best: (a, b) => b.total - a.total, worst: (a, b) => a.total - b.total };

  const number = (v) => (typeof v === "number" && Number.isFinite(v) ? v : null);
  const text = (said) => (Array.isArray(said) ? said.map((turn) => turn.content ?? "").join("\n") : String(said ?? ""));

  class Rollouts {
    constructor(place) {
      Object.assign(this, { place, all: [], order: "newest", held: false });
      place.innerHTML = `<div class="st-roll-tools"><div class="st-roll-orders" role="group" aria-label="${esc(t("rollouts.order"))}">${Object.keys(ORDERS).map((order) =>
        `<button type="button" data-order="${order}" aria-pressed="${order === this.order}">${esc(t(`rollouts.${order}`))}</button>`).join("")}</div>
        <span class="st-muted" data-count></span></div><div class="st-rolls"></div>`;
      [this.list, this.count] = [place.querySelector(".st-rolls"), place.querySelector("[data-count]")];
      place.querySelector(".st-roll-orders").onclick = ({ target }) => {
        if (!target.dataset.order) return;
        this.order = target.dataset.order;
        for (const button of place.querySelectorAll("[data-order]")) button.setAttribute("aria-pressed", String(button === target));
        this.draw();
      };
      // A list that moves under the pointer or the focus cannot be read: it waits.
      for (const [begin, end] of [["pointerenter", "pointerleave"], ["focusin", "focusout"]]) {
        this.list.addEventListener(begin, () => (this.held = true));
        this.list.addEventListener(end, () => { this.held = false; if (this.stale) this.draw(); });
      }
      this.draw();
    }

    clear() { this.all = []; this.draw(); }

    add(news) {
      const made = news.map((one) => ({ ...one, rewards: one.rewards || {}, total: number(one.advantage) ?? 0 }));
      this.all = [...this.all, ...made].slice(-KEPT);
      if (this.held) { this.stale = true; this.tell(); } else this.draw();
    }

    tell() {
      this.count.textContent = !this.all.length ? "" : this.stale ? t("rollouts.waiting") : t("rollouts.count", { n: this.all.length });
    }

    draw() {
      this.stale = false;
      this.tell();
      this.place.querySelector(".st-roll-tools").hidden = !this.all.length;
      if (!this.all.length) return void (this.list.innerHTML = `<div class="st-empty"><b>${esc(t("rollouts.empty"))}</b><p>${esc(t("rollouts.empty.hint"))}</p></div>`);
      const names = [...new Set(this.all.flatMap((one) => Object.keys(one.rewards)))];
      const spans = Object.fromEntries(names.map((name) => {
        const values = this.all.map((one) => number(one.rewards[name])).filter((v) => v !== null);
        return [name, [Math.min(0, ...values), Math.max(0, ...values)]];
      }));
      this.list.innerHTML = [...this.all].reverse().sort(ORDERS[this.order]).map((one) => this.card(one, names, spans)).join("");
    }

    card(one, names, spans) {
      const advantage = number(one.advantage), sign = advantage === null || Math.abs(advantage) < 1e-6 ? "even" : advantage > 0 ? "up" : "down";
      const bars = names.filter((name) => name in one.rewards).map((name) => {
        const v = number(one.rewards[name]), [low, high] = spans[name], span = high - low || 1, why = one.notes?.[name] || "";
        const from = v === null ? 0 : (Math.min(0, v) - low) / span, wide = v === null ? 0 : Math.abs(v) / span;
        const bar = `<i><u class="${v < 0 ? "st-down" : ""}" style="left:${(from * 100).toFixed(1)}%;width:${(wide * 100).toFixed(1)}%"></u></i>`;
        return `<li ${why ? `tabindex="0" aria-label="${esc(`${name} ${studio.num(v)}. ${why}`)}"` : ""}><span>${esc(name.replaceAll("_", " "))}</span>${bar}<b>${studio.num(v, 3)}</b>${why ? `<em role="tooltip">${esc(why)}</em>` : ""}</li>`;
      }).join("");
      return `<article class="st-roll"><header><span class="st-muted">${esc(t("rollouts.step", { step: one.step }))}</span>
        <span class="st-advantage st-is-${sign}" title="${esc(t(`rollouts.${sign}`))}">${sign === "even" ? "=" : sign === "up" ? "▲" : "▼"} ${studio.num(advantage, 3)}<span class="st-visually-hidden"> ${esc(t(`rollouts.${sign}`))}</span></span></header>
        <p class="st-asked">${esc(text(one.prompt))}</p><p class="st-said">${esc(text(one.completion)) || `<em>${esc(t("samples.nothing"))}</em>`}</p><ul class="st-scores">${bars}</ul></article>`;
    }
  }
  studio.Rollouts = Rollouts;
})();
