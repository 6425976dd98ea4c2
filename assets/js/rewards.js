/* The control for rewards: a list of cards with options and weights, and the bench that tries them on a few samples. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t, json = JSON.stringify;
  let known = null;  // the catalogue and the models at hand; asked for once, by the first control that is shown
  const start = () => (known ??= studio.call("rewards_start").catch((error) => { known = null; throw error; }));
  const icon = (path) => `<svg width="15" height="15" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${path}</svg>`;
  const UP = icon('<path d="m4 9.5 4-4 4 4"/>'), DOWN = icon('<path d="m4 6.5 4 4 4-4"/>'), CROSS = icon('<path d="m4.5 4.5 7 7M11.5 4.5l-7 7"/>');

  const given = (props) => (Array.isArray(props.value) ? props.value.filter((one) => one && typeof one === "object") : []);

  class Rewards {
    constructor({ root, props, watch }) {
      Object.assign(this, { root, props, tab: root.dataset.tab, forms: [], errors: [], list: given(props) });
      root.innerHTML = `<div class="rw-head"><div class="st-label">${esc(studio.worded(root.dataset.title))}</div><div class="st-info">${esc(studio.worded(root.dataset.help))}</div></div>
        <ol class="rw-list"></ol><div class="rw-add"><button type="button" class="st-btn" data-add aria-expanded="false">${esc(t("rewards.add"))}</button><div class="rw-menu" hidden></div></div>
        <section class="rw-bench" aria-label="${esc(t("rewards.try"))}"></section>`;
      this.place = root.querySelector(".rw-list");
      root.addEventListener("click", (event) => this.click(event));
      root.addEventListener("keydown", (event) => { if (event.key === "Escape" && !this.menu.hidden) { this.openMenu(false); root.querySelector("[data-add]").focus(); event.stopPropagation(); } });
      document.addEventListener("click", (event) => { if (!event.target.closest?.(".rw-add") || !root.contains(event.target)) this.openMenu(false); });
      watch("value", () => { if (json(given(props)) !== json(this.list)) { this.list = given(props); this.draw(); } });
      this.bench = new Bench(root.querySelector(".rw-bench"), this);
      this.load();
    }

    async load() {
      try {
        const found = await start();
        this.catalogue = found.catalogue;
        this.models = found.models;
        this.draw();
      } catch (error) {
        this.place.innerHTML = `<li class="st-empty st-is-bad"><b>${esc(error.message)}</b><button type="button" class="st-btn st-small" data-again>${esc(t("rewards.again"))}</button></li>`;
      }
    }

    get menu() { return this.root.querySelector(".rw-menu"); }
    entry(name) { return this.catalogue.find((one) => one.name === name); }

    /** All cards anew; `focus` is the place of the card whose first control is then focused. */
    draw(focus = null) {
      if (!this.catalogue) return;
      const list = this.list;
      this.errors = [];
      this.place.innerHTML = list.map((one, i) => this.card(one, i, list.length)).join("")
        || `<li class="st-empty"><b>${esc(t("rewards.none"))}</b><p>${esc(t("rewards.none.hint"))}</p></li>`;
      this.forms = list.map((one, i) => {
        const entry = this.entry(one.name), place = this.place.children[i].querySelector(".rw-options");
        if (!entry) return null;
        const options = { models: this.models, skip: ["weight"], changed: () => this.changed() };
        return new studio.dataParts.Form(place, entry.options, one, options);
      });
      for (const card of this.place.querySelectorAll(".rw-card")) this.weight(card);
      if (focus !== null) (this.place.children[focus]?.querySelector(".rw-options :is(input, select, textarea), .rw-weight input") || this.root.querySelector("[data-add]"))?.focus();
      this.check();
    }

    card(one, i, total) {
      const entry = this.entry(one.name), title = entry?.title || String(one.name ?? "");
      const weight = entry?.options.find((spec) => spec.name === "weight");
      const name = `rw-${this.tab}-${i}-weight`, value = one.weight ?? 1;
      const button = (act, label, svg, off) => `<button type="button" class="st-icon" data-act="${act}" aria-label="${esc(t(label, { title }))}" title="${esc(t(label, { title }))}" ${off ? "disabled" : ""}>${svg}</button>`;
      return `<li class="rw-card" data-at="${i}"><header><b>${esc(title)}</b>
        ${entry ? `<span class="rw-weight" title="${esc(weight.help)}"><label for="${name}">${esc(weight.title)}</label><input type="range" min="-2" max="5" step="0.1" tabindex="-1" aria-hidden="true"><input type="text" inputmode="decimal" autocomplete="off" id="${name}" value="${esc(value)}"></span>` : ""}
        <span class="rw-acts">${button("up", "rewards.up", UP, i === 0)}${button("down", "rewards.down", DOWN, i === total - 1)}${button("remove", "rewards.remove", CROSS)}</span></header>
        <p class="rw-help">${esc(entry ? entry.help : t("rewards.unknown"))}${entry?.paper ? ` <a href="${esc(entry.paper)}" target="_blank" rel="noopener">${esc(t("rewards.paper"))}</a>` : ""}</p>
        <div class="rw-options"></div><div class="rw-errors"></div></li>`;
    }

    /** The slider and the number beside it say the same; the number may lie beyond the slider. */
    weight(card) {
      const [slider, number] = card.querySelectorAll(".rw-weight input");
      if (!number) return;
      const follow = () => { slider.value = isFinite(Number(number.value)) ? Number(number.value) : 1; };
      follow();
      slider.oninput = () => { number.value = String(+Number(slider.value).toFixed(1)); this.changed(); };
      number.oninput = () => { follow(); this.changed(); };
    }

    /** What the controls hold now, as the recipe has it: what is as it would be anyway is left out. */
    read() {
      return this.list.map((one, i) => {
        const form = this.forms[i], card = this.place.children[i];
        if (!form) return one;
        const { weight, ...rest } = form.values(), text = card.querySelector(".rw-weight input[type=text]").value.trim();
        const made = { name: one.name, ...rest }, number = text !== "" && isFinite(Number(text)) ? Number(text) : text;
        if (number !== 1 || "weight" in one) made.weight = number;
        return made;
      });
    }

    changed() {
      const made = this.read();
      if (json(made) !== json(this.list)) this.props.value = this.list = made;
      this.check();
    }

    set(list, focus) {
      this.props.value = this.list = list;
      this.draw(focus);
    }

    click(event) {
      const target = event.target;
      if (target.closest("[data-again]")) return this.load();
      if (target.closest("[data-add]")) return this.openMenu(this.menu.hidden);
      const pick = target.closest("[data-pick]");
      if (pick) { this.openMenu(false); return this.set([...this.read(), { name: pick.dataset.pick }], this.list.length); }
      const act = target.closest("[data-act]");
      if (!act) return;
      const at = Number(act.closest(".rw-card").dataset.at), list = this.read();
      if (act.dataset.act === "remove") { list.splice(at, 1); return this.set(list, Math.min(at, list.length - 1)); }
      const to = at + (act.dataset.act === "up" ? -1 : 1);
      [list[at], list[to]] = [list[to], list[at]];
      this.set(list, null);
      const again = this.place.children[to]?.querySelector(`[data-act=${act.dataset.act}]`);
      (again?.disabled ? this.place.children[to].querySelector(".rw-acts button:not(:disabled)") : again)?.focus();
    }

    openMenu(wide) {
      const button = this.root.querySelector("[data-add]");
      if (wide && !this.catalogue) return;
      if (wide) this.menu.innerHTML = this.catalogue.map((one) => `<button type="button" data-pick="${esc(one.name)}"><b>${esc(one.title)}</b><small>${esc(one.help)}</small></button>`).join("");
      this.menu.hidden = !wide;
      button.setAttribute("aria-expanded", String(wide));
      if (wide) { this.menu.querySelector("button").focus({ preventScroll: true }); this.menu.scrollIntoView({ block: "nearest" }); }
    }

    check() {
      clearTimeout(this.timer);
      this.timer = setTimeout(async () => {
        const asked = json(this.list);
        try {
          const found = await studio.call("rewards_check", { rewards: this.list });
          if (asked === json(this.list)) { this.errors = found; this.showErrors(); }
        } catch { /* the form's own check tells when nobody answers */ }
      }, 350);
    }

    /** Errors at the options they belong to; `all`: also where nobody has been yet. */
    showErrors(all = false) {
      for (let i = 0; i < this.list.length; i++) {
        const card = this.place.children[i], mine = this.errors.filter((error) => error.number === i), form = this.forms[i];
        if (!card) continue;
        const text = (error) => [error.message, error.hint].filter(Boolean).join(" ");
        const named = Object.fromEntries(mine.filter((error) => error.option && error.option !== "weight").map((error) => [error.option, text(error)]));
        const rest = [...(form ? form.showErrors(named, all) : Object.values(named)), ...mine.filter((error) => !error.option || error.option === "weight").map(text)];
        card.querySelector(".rw-errors").innerHTML = rest.map((message) => `<p class="st-error" role="alert">${esc(message)}</p>`).join("");
        card.classList.toggle("rw-bad", Boolean(rest.length || card.querySelector(".st-error")));
      }
    }
  }

  /* Scores of a few samples before anything is trained. */
  class Bench {
    constructor(place, owner) {
      Object.assign(this, { place, owner, prompts: [] });
      const id = `rw-${owner.tab}`;
      place.innerHTML = `<div class="rw-try"><button type="button" class="st-btn" data-try>${esc(t("rewards.try"))}</button>
        <label class="st-check"><input type="checkbox" data-generate> ${esc(t("rewards.generate"))}</label><span class="rw-wait" role="status"></span></div>
        <div class="rw-found" aria-live="polite"></div>
        <details class="rw-own"><summary>${esc(t("rewards.type"))}</summary>
          <label class="rw-question" for="${id}-row" hidden>${esc(t("rewards.question"))}</label><select id="${id}-row" hidden></select>
          <label for="${id}-text">${esc(t("rewards.answer"))}</label><textarea id="${id}-text" rows="3" placeholder="${esc(t("rewards.type.hint"))}"></textarea>
          <button type="button" class="st-btn st-small" data-score>${esc(t("rewards.score"))}</button><div class="rw-typed" aria-live="polite"></div></details>`;
      place.querySelector("[data-try]").onclick = () => this.run(".rw-found", { generate: place.querySelector("[data-generate]").checked });
      place.querySelector("[data-score]").onclick = () => this.run(".rw-typed", { text: place.querySelector("textarea").value, row: Number(place.querySelector("select").value || 0) });
    }

    async run(where, more) {
      const out = this.place.querySelector(where), wait = this.place.querySelector(".rw-wait"), buttons = this.place.querySelectorAll("button");
      if (this.owner.errors.length) this.owner.showErrors(true);
      const form = studio.forms[this.owner.tab]?.values;
      if (!form) { out.innerHTML = `<p class="st-note">${esc(t("rewards.wait"))}</p>`; return; }
      const began = Date.now(), tick = () => { wait.textContent = t("rewards.trying", { time: studio.duration((Date.now() - began) / 1000) }); };
      for (const button of buttons) button.disabled = true;
      tick();
      const timer = setInterval(tick, 1000);
      try {
        const found = await studio.call("rewards_try", { values: { ...form, rewards: this.owner.list }, ...more });
        out.innerHTML = this.table(found);
        if (more.text === undefined) this.questions(found.rows);
        studio.say(t("rewards.tried"));
      } catch (error) {
        out.innerHTML = `<p class="st-error" role="alert">${esc([error.message, error.hint].filter(Boolean).join(" "))}</p>`;
      } finally {
        clearInterval(timer);
        wait.textContent = "";
        for (const button of buttons) button.disabled = false;
      }
    }

    questions(rows) {
      const select = this.place.querySelector("select");
      select.innerHTML = rows.map((row, i) => `<option value="${i}">${esc(row.prompt.slice(0, 120))}</option>`).join("");
      for (const one of [select, this.place.querySelector(".rw-question")]) one.hidden = rows.length < 2;
    }

    table({ rewards, rows, notes }) {
      const cell = (one, weight) => `<td class="rw-score" ${one.score === null ? "" : `style="--rw: ${this.shade(one.score, weight)}%"`}><b>${one.score === null ? t("rewards.nothing") : esc(studio.num(one.score, 3))}</b><small>${esc(one.reason || (one.score === 1 ? t("rewards.right") : ""))}</small></td>`;
      const head = rewards.map((one) => `<th scope="col">${esc(one.title)}<small>${esc(t("rewards.times", { weight: studio.num(one.weight) }))}</small></th>`).join("");
      const line = (sample) => `<tr><th scope="row"><span class="rw-kind rw-is-${esc(sample.kind)}">${esc(t(`rewards.kind.${sample.kind}`))}</span><span class="rw-text">${esc(sample.text) || `<i>${esc(t("rewards.empty"))}</i>`}</span></th>
        <td class="rw-total st-num"><b>${sample.total === null ? "–" : esc(studio.num(sample.total, 3))}</b></td>${sample.scores.map((one, i) => cell(one, rewards[i].weight)).join("")}</tr>`;
      const group = (row) => `<tbody><tr class="rw-prompt"><th scope="rowgroup" colspan="${rewards.length + 2}"><span class="rw-text">${esc(row.prompt)}</span></th></tr>${row.samples.map(line).join("")}</tbody>`;
      return `${notes.map((note) => `<p class="st-finding st-level-warning">${esc(note)}</p>`).join("")}
        <div class="rw-scroll" tabindex="0"><table class="st-table rw-table"><thead><tr><th scope="col">${esc(t("rewards.answer"))}</th><th scope="col" class="st-num">${esc(t("rewards.total"))}</th>${head}</tr></thead>${rows.map(group).join("")}</table></div>`;
    }

    /** How green a score is, from 0 (bad) to 100: of a penalty the small ones are good. */
    shade(score, weight) { const share = Math.max(0, Math.min(1, score)); return Math.round(100 * (weight < 0 ? 1 - share : share)); }
  }

  studio.parts.rewards = (context) => new Rewards(context);
})();
