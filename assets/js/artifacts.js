/* What can be done with a finished run's model, from the run and from the library alike. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const LICENSES = ["apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "openrail", "llama3.1", "gemma", "other"];

  /** The form again, filled with a run's recipe. */
  studio.again = (run) => {
    const tab = studio.formOf[run.kind];
    studio.lives[tab]?.show(null);
    studio.open(tab, { values: run.recipe });
  };

  /** The form that suits a dataset of this format, with it. */
  studio.useData = (ref, format) => {
    const shape = { preference: "pairs", rated: "unpaired" }[format], tab = shape ? "align" : "finetune";
    const method = shape && studio.methodsOf("align").find(([, facts]) => facts.shape === shape)?.[0];
    studio.lives[tab]?.show(null);
    studio.open(tab, { values: { dataset: ref, ...(method ? { method } : {}) } });
  };

  /** The fine-tune form with this model. */
  studio.startFrom = (ref, tab = "finetune") => {
    studio.lives[tab]?.show(null);
    studio.open(tab, { values: { model: ref } });
  };

  /** Start a job of another kind and tell where to see it. */
  studio.job = async (values) => {
    try {
      const run = await studio.call("submit", { values });
      studio.toast(t("job.started", { name: t(`kind.${run.kind}`) }));
      window.dispatchEvent(new CustomEvent("studio:runs"));
      return run;
    } catch (error) { studio.failed(error); return null; }
  };

  /** Two answers that a person types, scored by a reward model. */
  studio.tryReward = async (ref, name) => {
    const box = (key) => `<label class="st-line">${esc(t(`made.reward.${key}`))}<textarea name="${key}" rows="2" required></textarea></label>`;
    const done = studio.ask(t("made.reward.title", { name }), `<p class="st-muted">${esc(t("made.reward.help"))}</p>${["question", "first", "second"].map(box).join("")}
      <button type="button" class="st-btn st-primary" data-score>${esc(t("made.reward.score"))}</button><div class="st-reward-told" role="status"></div>`);
    const dialog = [...document.querySelectorAll("dialog.st-dialog")].at(-1), told = dialog.querySelector(".st-reward-told"), go = dialog.querySelector("[data-score]");
    go.onclick = async () => {
      const said = (key) => dialog.querySelector(`[name=${key}]`).value;
      go.disabled = true;
      told.innerHTML = `<div class="st-working">${esc(t("made.reward.working"))}</div>`;
      try {
        const { scores } = await studio.call("rewards_score", { model: ref, prompt: said("question"), answers: [said("first"), said("second")] });
        const better = scores[0] === scores[1] ? "even" : scores[0] > scores[1] ? "first" : "second";
        told.innerHTML = `<dl class="st-tiles">${["first", "second"].map((key, i) => `<div><dt>${esc(t(`made.reward.${key}`))}</dt><dd>${studio.num(scores[i])}</dd></div>`).join("")}</dl><p>${esc(t(`made.reward.better.${better}`))}</p>`;
      } catch (error) { told.innerHTML = `<p class="st-error">${esc(error.message)} ${esc(error.hint || "")}</p>`; }
      go.disabled = false;
    };
    await done;
  };

  studio.push = async (ref, name) => {
    const answer = await studio.ask(t("push.title"), `<p class="st-muted">${esc(t("push.help"))}</p>
      <label class="st-line">${esc(t("push.repo"))}<input name="repo_id" required placeholder="${esc(t("push.repo.example"))}" autofocus></label>
      <label class="st-line">${esc(t("push.license"))}<input name="license" list="st-licenses" placeholder="${esc(t("push.license.example"))}"><datalist id="st-licenses">${LICENSES.map((l) => `<option>${l}</option>`).join("")}</datalist></label>
      <label class="st-check"><input type="checkbox" name="private" checked> ${esc(t("push.private"))}</label>`, t("push.start"));
    if (answer) await studio.job({ kind: "publish", method: "hub", model: ref, repo_id: answer.repo_id, license: answer.license, private: "private" in answer });
  };

  studio.merge = async (ref, name) => {
    const answer = await studio.ask(t("fold.title"), `<p class="st-muted">${esc(t("fold.help"))}</p>
      <label class="st-line">${esc(t("fold.name"))}<input name="name" maxlength="80" value="${esc(`${name} merged`.slice(0, 80))}" autofocus></label>`, t("fold.start"));
    if (answer) await studio.job({ kind: "merge", method: "adapter", model: ref, name: answer.name });
  };

  studio.showCard = async (text) => {
    const done = studio.ask(t("card.title"), `<pre class="st-code">${esc(text)}</pre><button type="button" class="st-btn" data-copy>${esc(t("action.copy"))}</button>`);
    document.querySelector("dialog [data-copy]").onclick = (event) => studio.copy(text, event.target);
    await done;
  };

  /** Search the Hub for a model or dataset and put it into the form. */
  studio.hub = async (kind, tab) => {
    const done = studio.ask(t(`hub.title.${kind}`), `<div class="st-toolbar"><input type="search" placeholder="${esc(t("hub.query"))}" aria-label="${esc(t("hub.query"))}" autofocus>
      <button type="button" class="st-btn st-primary" data-search>${esc(t("hub.search"))}</button></div><div class="st-hub-results" role="status">
      <p class="st-muted">${esc(t("hub.help"))}</p></div>`);
    const dialog = [...document.querySelectorAll("dialog.st-dialog")].at(-1), place = dialog.querySelector(".st-hub-results"), input = dialog.querySelector("input");
    const search = async () => {
      place.innerHTML = `<div class="st-working">${esc(t("hub.working"))}</div>`;
      try {
        const found = await studio.call("hub_search", { kind, query: input.value });
        place.innerHTML = found.length ? `<table class="st-table"><tbody>${found.map((item) => `<tr><td><b>${esc(item.id)}</b><small>${[
          item.parameters && t("hub.parameters", { n: studio.num(item.parameters / 1e6, 3) }), item.size && studio.bytes(item.size), item.license || t("hub.no_license"),
          item.downloads != null && t("hub.downloads", { n: studio.num(item.downloads) })].filter(Boolean).map(esc).join(" · ")}</small>${item.gated ? `<small class="st-warn">${esc(item.gated)}</small>` : ""}</td>
          <td class="st-row-actions"><a href="${esc(item.url)}" target="_blank" rel="noopener noreferrer">${esc(t("hub.page"))}</a><button type="button" class="st-btn st-small" data-ref="${esc(item.ref)}">${esc(t("hub.choose"))}</button></td></tr>`).join("")}</tbody></table>`
          : `<div class="st-empty"><b>${esc(t("hub.nothing"))}</b></div>`;
      } catch (error) { place.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`; }
    };
    dialog.querySelector("[data-search]").onclick = search;
    input.onkeydown = (event) => { if (event.key === "Enter") { event.preventDefault(); search(); } };
    place.onclick = (event) => {
      const ref = event.target.dataset?.ref;
      if (!ref) return;
      dialog.close();
      studio.send(`open_${tab}`, { values: { [kind]: ref } });
    };
    await done;
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("[data-st-hub]");
    if (link) studio.hub(link.dataset.stHub, link.dataset.stTab);
  });

  /** Buttons below a finished run. */
  studio.artifactActions = (place, run) => {
    const made = run.artifacts.find((a) => a.kind === "adapter" || a.kind === "model") || studio.madeDataset(run);
    if (!made) return void (place.hidden = true);
    const ref = made.ref || `library:${made.id}`, base = run.recipe?.model;
    place.innerHTML = `<div class="st-card st-made"><div><b>${esc(t(`made.${made.kind}`, { name: made.name }))}</b><p class="st-muted">${esc(t("made.hint"))}</p></div><div class="st-actions"></div></div>`;
    const bar = place.querySelector(".st-actions");
    const button = (key, act, kind = "") => {
      const element = Object.assign(document.createElement("button"), { type: "button", className: `st-btn ${kind}`, textContent: t(key) });
      element.onclick = () => act(element);
      bar.append(element);
    };
    if (made.kind === "dataset") return button("made.open", () => studio.open("data", { ref }), "st-primary");
    if (made.meta?.reward) {
      place.querySelector(".st-muted").textContent = t(made.kind === "adapter" ? "made.reward.merge" : "made.reward.hint");
      if (made.kind === "model") button("made.reward.try", () => studio.tryReward(ref, made.name), "st-primary");
    } else {
      const own = studio.afterMade?.[run.kind]; // buttons of a kind of its own come first
      if (own) own({ button, run, made, ref });
      else button("made.chat", () => studio.open("chat", { models: [...new Set([base, ref])].filter(Boolean) }), "st-primary");
      if (studio.evalAgainst) button(studio.evalAgainstKey(run.kind), () => studio.evalAgainst(ref));
      button("made.continue", () => studio.startFrom(ref, studio.tabOf[run.kind]));
      if (run.kind !== "align") button("made.align", () => studio.startFrom(ref, "align"));
      button("made.quantize", () => studio.startFrom(ref, "quantize"));
    }
    if (made.kind === "adapter") button("made.merge", () => studio.merge(ref, made.name));
    button("made.push", () => studio.push(ref, made.name));
    button("made.card", async () => {
      try { const card = await studio.call("card", { run: run.id }); studio.showCard(card); } catch (error) { studio.failed(error); }
    });
  };
})();
