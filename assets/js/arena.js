/* The arena: two nameless answers, one vote, the ranking beside them. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const VOTES = ["a", "tie", "bad", "b"], KEYS = { a: "a", b: "b", t: "tie", x: "bad" };
  const KEPT = "studio-arena-prompt";
  const percent = (x) => `${Math.round(x * 100)} %`;
  const votes = (n) => (n === 1 ? t("arena.vote.one") : t("arena.votes", { n: n.toLocaleString("en") }));

  class Arena {
    constructor({ root }) {
      this.root = root;
      root.innerHTML = `<div class="ar"><section class="ar-main" aria-label="${esc(t("arena.title"))}">
        <header class="ar-asked" hidden></header><div class="ar-sides"></div><div class="ar-votes" role="group" aria-label="${esc(t("arena.vote"))}"></div>
        <form class="ch-composer"><textarea id="arena-prompt" rows="1" aria-label="${esc(t("arena.prompt"))}" placeholder="${esc(t("arena.prompt.hint"))}"></textarea>
          <button type="button" class="st-btn" data-next hidden title="${esc(t("arena.next.hint"))}">${esc(t("arena.next"))}</button><button type="submit" class="st-btn st-primary" data-fight>${esc(t("arena.fight"))}</button></form></section>
        <aside class="ar-side" aria-label="${esc(t("arena.ranking"))}"></aside></div>`;
      this.$ = (selector) => root.querySelector(selector);
      this.tag = "";
      const area = this.$("#arena-prompt");
      area.value = sessionStorage.getItem(KEPT) || "";
      area.oninput = () => { sessionStorage.setItem(KEPT, area.value); this.buttons(); };
      area.onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.$("form").requestSubmit(); } };
      this.$("form").onsubmit = (event) => { event.preventDefault(); if (area.value.trim()) this.fight(area.value); };
      this.$("[data-next]").onclick = () => this.fight("");
      this.$(".ar-votes").onclick = (event) => { const vote = event.target.closest("[data-vote]")?.dataset.vote; if (vote) this.vote(vote); };
      this.$(".ar-side").onclick = (event) => this.press(event.target.closest("button"));
      this.$(".ar-side").onchange = (event) => { if (event.target.matches("[data-tag]")) { this.tag = event.target.value; this.load(); } };
      document.addEventListener("keydown", (event) => this.key(event));
      studio.plays.arena = { shown: () => this.load() };
      if (studio.playing() === "arena") this.load();
    }

    async load() {
      try {
        this.facts = await studio.call("arena", { tag: this.tag });
        this.draw();
      } catch (error) {
        this.$(".ar-sides").innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`;
      }
    }

    draw() { this.ranking(); this.fought(); this.buttons(); }

    /* ---- the battle */

    async fight(prompt) {
      this.busy = true;
      this.buttons();
      try {
        this.battle = await studio.call("arena_start", { prompt });
        if (prompt) { this.$("#arena-prompt").value = ""; sessionStorage.removeItem(KEPT); }
        this.fought();
        this.watch(this.battle.id);
      } catch (error) { studio.failed(error); }
      this.busy = false;
      this.buttons();
    }

    watch(id) {
      clearInterval(this.timer);
      this.timer = setInterval(async () => {
        if (this.asking || document.visibilityState !== "visible") return;
        this.asking = true;
        try {
          const found = await studio.call("arena_poll", { id });
          if (this.battle?.id === id) { this.battle = found; this.fought(); this.buttons(); }
          if (found.state !== "answering") clearInterval(this.timer);
        } catch (error) { if (!error.offline) { clearInterval(this.timer); studio.failed(error); } } finally { this.asking = false; }
      }, 400);
    }

    async vote(choice) {
      const battle = this.battle;
      if (battle?.state !== "ready" || this.busy) return;
      this.busy = true;
      try {
        this.battle = await studio.call("arena_vote", { id: battle.id, vote: choice });
        this.fought();
        studio.say(this.told());
        this.load();
      } catch (error) { studio.failed(error); }
      this.busy = false;
      this.buttons();
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || studio.tabNow() !== "chat" || studio.playing() !== "arena") return;
      if (event.target.closest?.("input, textarea, select, dialog, [contenteditable]")) return;
      const choice = KEYS[event.key.toLowerCase()];
      if (choice && this.battle?.state === "ready") { event.preventDefault(); this.vote(choice); }
    }

    told() { const { vote, ...battle } = this.battle; return t(`arena.voted.${vote}`, { name: battle[vote]?.label || "" }); }

    /** The two answers, or what to do first. */
    fought() {
      const place = this.$(".ar-sides"), battle = this.battle, facts = this.facts || { models: [], prompts: 0 };
      const asked = this.$(".ar-asked");
      asked.hidden = !battle;
      if (!battle) {
        const ready = facts.models.length > 1;
        place.innerHTML = `<div class="st-empty"><b>${esc(t(ready ? "arena.start" : "arena.empty"))}</b><p>${esc(ready ? t("arena.start.hint") : facts.may_change === false ? t("arena.empty.guest") : t("arena.empty.hint"))}</p>
          ${ready && facts.prompts ? `<p>${esc(t("arena.start.prompts", { n: studio.num(facts.prompts) }))}</p>` : ""}
          ${!ready && facts.may_change ? `<button type="button" class="st-btn st-primary" data-setup>${esc(t("arena.setup"))}</button>` : ""}</div>`;
        const button = place.querySelector("[data-setup]");
        if (button) button.onclick = () => this.setup();
        return;
      }
      const turns = battle.prompt.filter((turn) => turn.role !== "system");
      asked.innerHTML = `<span class="st-muted">${esc(t("arena.asked"))}</span>${battle.tag ? `<span class="st-tag">${esc(battle.tag)}</span>` : ""}<p>${turns.map((turn) => esc(turn.content)).join("<br>")}</p>`;
      if (place.dataset.id !== battle.id) { place.dataset.id = battle.id; place.innerHTML = ["a", "b"].map((side) => `<article class="ar-answer" data-side="${side}"><header></header><div class="ch-text" tabindex="0"></div></article>`).join(""); }
      for (const side of ["a", "b"]) {
        const one = battle[side], card = place.querySelector(`[data-side=${side}]`), won = battle.vote === side;
        card.classList.toggle("ar-won", won);
        card.querySelector("header").innerHTML = `<b>${esc(one.label || t(`arena.side.${side}`))}</b>${won ? `<span class="st-tag ar-better">${esc(t("arena.won"))}</span>` : ""}${one.tokens_per_second ? `<small>${studio.num(one.tokens_per_second, 3)} tok/s</small>` : ""}`;
        card.querySelector(".ch-text").innerHTML = one.state === "failed" ? `<div class="st-empty st-is-bad"><b>${esc(one.error)}</b><p>${esc(one.hint || "")}</p></div>`
          : one.text ? studio.markdown(one.text) : `<p class="st-working">${esc(t("arena.waiting"))}</p>`;
      }
    }

    buttons() {
      const battle = this.battle, place = this.$(".ar-votes"), facts = this.facts || { models: [] }, able = facts.models.length > 1 && !this.busy && battle?.state !== "answering";
      this.$("[data-fight]").disabled = !able || !this.$("#arena-prompt").value.trim();
      this.$("[data-next]").hidden = !facts.prompts;
      this.$("[data-next]").disabled = !able;
      place.hidden = !battle;
      if (!battle) return;
      if (battle.state === "voted" || battle.state === "failed") {
        place.innerHTML = `<p class="ar-told" role="status">${esc(battle.vote ? this.told() : t("arena.failed"))}</p>`;
        return;
      }
      if (!place.querySelector("[data-vote]")) place.innerHTML = VOTES.map((v) => `<button type="button" class="st-btn" data-vote="${v}">${esc(t(`arena.vote.${v}`))}<kbd>${Object.keys(KEYS).find((k) => KEYS[k] === v).toUpperCase()}</kbd></button>`).join("");
      for (const button of place.children) { button.disabled = battle.state !== "ready" || this.busy; button.title = battle.state === "ready" ? "" : t("arena.vote.wait"); }
    }

    /* ---- the ranking */

    ranking() {
      const { ranking, models, may_change } = this.facts, rows = ranking.table, tags = Object.entries(ranking.tags);
      const points = rows.flatMap((r) => [r.low ?? r.rating, r.high ?? r.rating]), low = Math.min(...points), span = Math.max(...points) - low || 1;
      const at = (x) => `${(((x - low) / span) * 100).toFixed(1)}%`;
      const row = (r, i) => `<tr><td>${i + 1}</td><th scope="row"><span>${esc(r.label)}</span><i class="ar-bar" aria-hidden="true">${r.low == null ? "" : `<u style="left:${at(r.low)};right:calc(100% - ${at(r.high)})"></u>`}<s style="left:${at(r.rating)}"></s></i></th>
        <td><b>${Math.round(r.rating)}</b>${r.low == null ? "" : `<small>${Math.round(r.low)}–${Math.round(r.high)}</small>`}</td><td>${Math.round(r.elo)}</td><td>${r.wins}<small>${r.ties}</small><small>${r.losses}</small></td></tr>`;
      this.$(".ar-side").innerHTML = `<header><h2>${esc(t("arena.ranking"))}</h2><span class="st-muted">${esc(votes(ranking.votes))}</span>${may_change ? `<button type="button" class="st-btn st-small" data-setup>${esc(t("arena.setup"))}</button>` : ""}</header>
        ${tags.length ? `<label class="ar-tag"><span>${esc(t("arena.kind"))}</span><select data-tag><option value="">${esc(t("arena.all"))}</option>${tags.map(([tag, n]) => `<option value="${esc(tag)}" ${tag === this.tag ? "selected" : ""}>${esc(`${tag} (${n})`)}</option>`).join("")}</select></label>` : ""}
        ${rows.length ? `<div class="ar-scroll"><table class="st-table ar-table"><thead><tr><th>${esc(t("arena.rank"))}</th><th>${esc(t("arena.model"))}</th><th>${esc(t("arena.rating"))}</th><th>${esc(t("arena.elo"))}</th><th>${esc(t("arena.record"))}</th></tr></thead><tbody>${rows.map(row).join("")}</tbody></table></div>
          <p class="st-muted">${esc(t("arena.ranking.help"))}</p>${this.matrix(ranking.matrix)}
          ${may_change ? `<button type="button" class="st-btn" data-dataset title="${esc(t("arena.dataset.hint"))}">${esc(t("arena.dataset.make"))}</button><p class="st-muted">${esc(t("arena.dataset.hint"))}</p>` : ""}`
          : `<div class="st-empty"><b>${esc(t("arena.ranking.none"))}</b><p>${esc(t("arena.ranking.none.hint"))}</p></div>${models.length ? `<p class="st-muted ar-pool">${models.map((m) => esc(m.label)).join(" · ")}</p>` : ""}`}`;
    }

    matrix({ labels, share, battles }) {
      if (labels.length < 2) return "";
      const cell = (i, j) => (share[i][j] == null ? "<td></td>" : `<td style="--win:${share[i][j]}" title="${esc(t("arena.matrix.cell", { a: labels[i], b: labels[j], share: percent(share[i][j]), n: battles[i][j] }))}">${percent(share[i][j])}</td>`);
      return `<h3>${esc(t("arena.matrix"))}</h3><div class="ar-scroll"><table class="ar-matrix"><thead><tr><td></td>${labels.map((l, i) => `<th scope="col" title="${esc(l)}">${i + 1}</th>`).join("")}</tr></thead>
        <tbody>${labels.map((l, i) => `<tr><th scope="row" title="${esc(l)}"><small>${i + 1}</small> ${esc(l)}</th>${labels.map((_, j) => cell(i, j)).join("")}</tr>`).join("")}</tbody></table></div><p class="st-muted">${esc(t("arena.matrix.help"))}</p>`;
    }

    async press(button) {
      if (button?.dataset.setup !== undefined) this.setup();
      if (button?.dataset.dataset === undefined) return;
      try {
        const made = await studio.call("arena_dataset", { tag: this.tag });
        studio.toast(t("arena.dataset.made", { n: made.pairs }), "info", made.left_out ? t("arena.dataset.left", { n: made.left_out }) : "");
        studio.open("align", { values: { method: "dpo", dataset: made.ref } });
      } catch (error) { studio.failed(error); }
    }

    /* ---- its setup */

    async setup() {
      let facts;
      try { facts = await studio.call("arena", { all: true }); } catch (error) { return studio.failed(error); }
      const { known, bounds } = facts, chosen = facts.models.map((m) => m.ref), label = (ref) => known.models.find((m) => m.ref === ref)?.label || facts.models.find((m) => m.ref === ref)?.label || ref;
      const dialog = document.createElement("dialog");
      dialog.className = "st-dialog ar-dialog";
      dialog.setAttribute("aria-label", t("arena.setup.title"));
      const number = (name) => `<label><span>${esc(t(`arena.${name}`))}</span><input name="${name}" inputmode="decimal" value="${esc(facts.settings[name] ?? bounds.defaults[name])}"></label>`;
      dialog.innerHTML = `<form method="dialog"><h2>${esc(t("arena.setup.title"))}</h2><div class="st-dialog-body"><p class="st-muted">${esc(t("arena.lead"))}</p>
        <div><span class="st-label">${esc(t("arena.models"))}</span><ul class="ar-models"></ul><button type="button" class="st-btn st-small" data-add>${esc(t("arena.add"))}</button></div>
        <label><span>${esc(t("arena.dataset"))}</span><select name="dataset"><option value="">${esc(t("arena.dataset.none"))}</option>${known.datasets.filter((d) => d.stage !== "step").map((d) => `<option value="${esc(d.ref)}" ${d.ref === facts.dataset ? "selected" : ""}>${esc(d.label)}</option>`).join("")}</select><small>${esc(t("arena.dataset.help"))}</small></label>
        <label><span>${esc(t("arena.tag"))}</span><input name="tag" maxlength="80" value="${esc(facts.tag)}"><small>${esc(t("arena.tag.help"))}</small></label>
        <div class="ar-two">${number("temperature")}${number("max_tokens")}</div><p class="st-error" role="alert" hidden></p></div>
        <footer><button type="button" class="st-btn" data-cancel>${esc(t("action.cancel"))}</button><button type="submit" class="st-btn st-primary">${esc(t("arena.save"))}</button></footer></form>`;
      const list = dialog.querySelector(".ar-models");
      const draw = () => { list.innerHTML = chosen.map((ref, i) => `<li><span>${esc(label(ref))}</span><button type="button" class="st-icon" data-drop="${i}" aria-label="${esc(t("arena.drop", { name: label(ref) }))}">×</button></li>`).join(""); };
      list.onclick = (event) => { const i = event.target.closest("[data-drop]")?.dataset.drop; if (i !== undefined) { chosen.splice(Number(i), 1); draw(); } };
      dialog.querySelector("[data-cancel]").onclick = () => dialog.close();
      dialog.onclose = () => dialog.remove();
      dialog.querySelector("form").onsubmit = async (event) => {
        event.preventDefault();
        const form = new FormData(event.target), told = dialog.querySelector(".st-error");
        const values = { models: chosen, dataset: form.get("dataset"), tag: form.get("tag").trim(), settings: { ...facts.settings, temperature: form.get("temperature"), max_tokens: form.get("max_tokens") } };
        try {
          await studio.call("arena_setup", { values });
          dialog.close();
          this.load();
        } catch (error) { told.hidden = false; told.textContent = [error.message, error.hint].filter(Boolean).join(" "); }
      };
      document.body.append(dialog);
      dialog.showModal();
      new studio.Picker(dialog.querySelector("[data-add]"), () => known.models.filter((m) => !chosen.includes(m.ref)), (ref) => { if (!chosen.includes(ref)) chosen.push(ref); draw(); });
      draw();
    }
  }
  studio.parts.arena = (context) => new Arena(context);
})();
