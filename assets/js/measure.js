/* What a run needs against what this machine has: by formula at once, by two real steps when asked, and a setting that fits. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const known = {}; // tab -> {key, busy, result, error}: belongs to the very values it was measured for
  const key = (state) => JSON.stringify(state.values);

  /** A change of settings in words: "batch 2 × 2, gradient checkpointing". */
  studio.offerText = (change) => {
    const words = [];
    if (change.per_device_train_batch_size) words.push(t("offer.batch", { batch: change.per_device_train_batch_size, steps: change.gradient_accumulation_steps }));
    if (change.gradient_checkpointing) words.push(t("offer.checkpointing"));
    if (change.max_length) words.push(t("offer.length", { n: change.max_length }));
    if (change.method) words.push(t("offer.method", { name: change.method === "qlora" ? "QLoRA" : "LoRA" }));
    return words.join(", ");
  };

  /** The bar of needed against free memory, and what to do when it is too much. */
  function room(found, measured) {
    if (!found.free || (!found.memory && found.fits !== false)) return "";
    const share = found.memory ? Math.min(1, found.memory / found.free) : 1, bad = found.fits === false;
    const line = found.memory ? t(measured ? "room.measured" : "room.estimated", { needed: studio.bytes(found.memory), free: studio.bytes(found.free) }) : t("room.ran_out", { free: studio.bytes(found.free) });
    const after = found.keeps ? t("room.keeps") : found.next?.method ? t("room.method") : t("room.shorter");
    const offer = bad && found.next ? `<p>${esc(t(found.next_fits === false ? "room.still_over" : "room.offer", { change: studio.offerText(found.next) }))} ${esc(after)}</p>
      <button type="button" class="st-btn st-small st-primary" data-use>${esc(t("room.use"))}</button>` : "";
    return `<div class="st-room${bad ? " st-over" : ""}"><p>${esc(line)}</p><div class="st-bar" role="img" aria-label="${esc(line)}"><i style="width:${(share * 100).toFixed(1)}%"></i></div>
      ${bad ? `<p><b>${esc(t("room.over"))}</b></p>${offer}` : ""}</div>`;
  }

  function result(found) {
    const rows = [[t("measure.memory"), found.memory ? studio.bytes(found.memory) : t("measure.over")], [t("measure.time"), found.seconds == null ? "–" : t("estimate.about", { time: studio.duration(found.seconds) })],
      [t("measure.step"), found.step_seconds == null ? "–" : `${studio.num(found.step_seconds, 3)} s`], [t("measure.speed"), found.tokens_per_second == null ? "–" : studio.num(found.tokens_per_second, 3)]];
    return `<h3>${esc(t("measure.title"))}</h3><dl class="st-tiles">${rows.map(([name, value]) => `<div><dt>${esc(name)}</dt><dd>${esc(value)}</dd></div>`).join("")}</dl>
      ${(found.notes || []).map((note) => `<p class="st-note">${esc(note)}</p>`).join("")}`;
  }

  /** Drawn below the estimate of a tab, each time that is drawn. */
  studio.drawRoom = (root, tab, state) => {
    root.querySelector(".st-measure")?.remove();
    if (Object.keys(state.errors || {}).length || !["sft", "pretrain", "align"].includes(state.values?.kind)) return;
    const place = Object.assign(document.createElement("div"), { className: "st-measure" }), mine = known[tab]?.key === key(state) ? known[tab] : null;
    place.innerHTML = `${mine?.result ? result(mine.result) : ""}${mine?.error ? `<p class="st-note" role="alert"><b>${esc(mine.error.message)}</b> ${esc(mine.error.hint || "")}</p>` : ""}
      ${room(mine?.result || state.estimate || {}, Boolean(mine?.result))}
      ${mine?.busy ? `<div class="st-working" role="status">${esc(t("measure.working"))}</div>` : `<button type="button" class="st-btn st-small" data-measure title="${esc(t("measure.help"))}">${esc(t("measure.start"))}</button>`}`;
    const start = place.querySelector("[data-measure]"), use = place.querySelector("[data-use]");
    if (start) start.onclick = () => measure(root, tab, state);
    if (use) use.onclick = () => studio.send(`open_${tab}`, { values: (mine?.result || state.estimate).next });
    root.append(place);
  };

  async function measure(root, tab, state) {
    const mine = (known[tab] = { key: key(state), busy: true });
    studio.drawRoom(root, tab, state);
    try {
      mine.result = await studio.call("measure", { values: state.values });
      studio.say(t("measure.done"));
    } catch (error) { mine.error = error; }
    mine.busy = false;
    if (studio.forms[tab]) studio.drawRoom(root, tab, studio.forms[tab]);
  }
})();
