/* What can be done with a finished run's model, from the run and from the library alike. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const TAB = { sft: "finetune", pretrain: "pretrain" };

  /** The form again, filled with a run's recipe. */
  studio.again = (run) => {
    const tab = TAB[run.kind];
    studio.lives[tab]?.show(null);
    studio.open(tab, { values: run.recipe });
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

  studio.push = async (ref, name) => {
    const answer = await studio.ask(t("push.title"), `<p class="st-muted">${esc(t("push.help"))}</p>
      <label class="st-line">${esc(t("push.repo"))}<input name="repo_id" required placeholder="${esc(t("push.repo.example"))}" autofocus></label>
      <label class="st-check"><input type="checkbox" name="private" checked> ${esc(t("push.private"))}</label>`, t("push.start"));
    if (answer) await studio.job({ kind: "publish", method: "hub", model: ref, repo_id: answer.repo_id, private: "private" in answer });
  };

  studio.merge = async (ref, name) => {
    const answer = await studio.ask(t("merge.title"), `<p class="st-muted">${esc(t("merge.help"))}</p>
      <label class="st-line">${esc(t("merge.name"))}<input name="name" maxlength="80" value="${esc(`${name} merged`.slice(0, 80))}" autofocus></label>`, t("merge.start"));
    if (answer) await studio.job({ kind: "merge", method: "adapter", adapter: ref, name: answer.name });
  };

  studio.showCard = async (text) => {
    const done = studio.ask(t("card.title"), `<pre class="st-code">${esc(text)}</pre><button type="button" class="st-btn" data-copy>${esc(t("action.copy"))}</button>`);
    document.querySelector("dialog [data-copy]").onclick = (event) => studio.copy(text, event.target);
    await done;
  };

  /** Buttons below a finished run. */
  studio.artifactActions = (place, run) => {
    const made = run.artifacts.find((a) => a.kind === "adapter" || a.kind === "model");
    if (!made) return void (place.hidden = true);
    const ref = made.ref || `library:${made.id}`, base = run.recipe?.model;
    place.innerHTML = `<div class="st-card st-made"><div><b>${esc(t(`made.${made.kind}`, { name: made.name }))}</b><p class="st-muted">${esc(t("made.hint"))}</p></div><div class="st-actions"></div></div>`;
    const bar = place.querySelector(".st-actions");
    const button = (key, act, kind = "") => {
      const element = Object.assign(document.createElement("button"), { type: "button", className: `st-btn ${kind}`, textContent: t(key) });
      element.onclick = () => act(element);
      bar.append(element);
    };
    button("made.chat", () => studio.open("chat", { models: [...new Set([base, ref])].filter(Boolean) }), "st-primary");
    button("made.continue", () => studio.startFrom(ref));
    if (made.kind === "adapter") button("made.merge", () => studio.merge(ref, made.name));
    button("made.push", () => studio.push(ref, made.name));
    button("made.card", async () => {
      try { const card = await studio.call("card", { run: run.id }); studio.showCard(card); } catch (error) { studio.failed(error); }
    });
  };
})();
