"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SIZES = [["small", "below 32 px", 0, 1024], ["medium", "32 to 96 px", 1024, 9216], ["large", "from 96 px on", 9216, Infinity]];
  const by = (id) => document.getElementById(id);
  const about = JSON.parse(by("about").textContent);
  const sources = [...document.querySelectorAll("script.picture")];
  const slider = by("score"), view = by("view"), tip = by("tip"), list = by("all");
  const sizeOf = (area) => SIZES.findIndex(([, , low, high]) => low <= area && area < high);
  const read = (number) => JSON.parse(sources[number].textContent);
  // What counts need of every instance, in one order: its picture, class, size and score.
  const total = about.rows.reduce((sum, row) => sum + row.labels.length, 0);
  const error = new Int8Array(total).fill(-1), owner = new Uint32Array(total), label = new Uint16Array(total), size = new Uint8Array(total), score = new Float64Array(total);
  const area = new Float64Array(total), first = [];
  let filled = 0;
  about.rows.forEach((row, number) => {
    first.push(filled);
    row.labels.forEach((each, index) => {
      owner[filled] = number; label[filled] = each; area[filled] = row.areas[index];
      size[filled] = sizeOf(row.areas[index]); score[filled] = row.scores[index] / 10000;
      if (row.errors.length) error[filled] = row.errors[index];
      filled += 1;
    });
  });
  first.push(filled);

  let current = 0, moved = false, paths = [], truths = [];
  const lowest = () => (about.own && !moved ? (each) => about.own[each] : () => Number(slider.value));
  const options = (place, entries, prefix) => entries.map(([text, color], index) => {
    const line = document.createElement("label"), box = document.createElement("input"), dot = document.createElement("i");
    const name = document.createElement("b"), count = document.createElement("span");
    box.type = "checkbox"; box.checked = true; box.id = `${prefix}-${index}`; name.textContent = text;
    if (color) dot.style.background = color; else dot.hidden = true;
    count.id = `${prefix}-count-${index}`;
    line.append(box, dot, name, count); place.append(line);
    box.addEventListener("change", update);
    return { box, count };
  });
  const classes = options(by("classes"), about.classes.map((each) => [each.name, each.color]), "class");
  const sizes = options(by("sizes"), SIZES.map(([name, sides]) => [`${name}, ${sides}`, null]), "size");

  // The last line is of the ground truth for which nothing that is shown was found.
  const names = about.errors.length ? [...about.errors, "not found"] : [];
  const errors = options(by("errors"), names.map((name, index) => [name, `var(--curve-${index + 2})`]), "error");
  const lost = names.length - 1;

  const buttons = about.rows.map((row, number) => {
    const item = document.createElement("li"), button = document.createElement("button"), image = document.createElement("img");
    const count = document.createElement("span");
    image.alt = ""; button.type = "button"; button.append(image, count); item.append(button); list.append(item);
    button.addEventListener("click", () => { show(number); view.scrollIntoView({ block: "nearest" }); });
    return { button, image, count };
  });
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    const number = Number(entry.target.dataset.number), { small, name } = read(number);
    entry.target.src = small; buttons[number].button.title = name;
    seen.unobserve(entry.target);
  }), { rootMargin: "300px" });
  buttons.forEach(({ image }, number) => { image.dataset.number = number; seen.observe(image); });

  function update() {
    const from = lowest(), here = new Uint32Array(classes.length), all = new Uint32Array(classes.length);
    const sizesHere = new Uint32Array(SIZES.length), sizesAll = new Uint32Array(SIZES.length), counts = new Uint32Array(buttons.length);
    const wanted = classes.map(({ box }) => box.checked), fitting = sizes.map(({ box }) => box.checked);
    const wrongHere = new Uint32Array(names.length), wrongAll = new Uint32Array(names.length), kinds = errors.map(({ box }) => box.checked);
    const marked = by("mark").checked, shownRows = new Uint8Array(total);
    let sum = 0;
    for (let row = 0; row < total; row += 1) {
      const own = label[row], kind = size[row], mine = owner[row] === current;
      const scored = score[row] >= from(own);
      if (scored && fitting[kind]) { all[own] += 1; if (mine) here[own] += 1; }
      if (scored && wanted[own]) { sizesAll[kind] += 1; if (mine) sizesHere[kind] += 1; }
      let shown = scored && wanted[own] && fitting[kind];
      shownRows[row] = shown;
      if (shown && error[row] >= 0) { wrongAll[error[row]] += 1; if (mine) wrongHere[error[row]] += 1; }
      if (marked && error[row] >= 0) shown = shown && kinds[error[row]];
      if (shown) { counts[owner[row]] += 1; sum += 1; }
      if (mine) paths[row - first[current]].style.display = shown ? "" : "none";
    }
    if (names.length) {
      about.rows.forEach((row, number) => row.finders.forEach((finder, index) => {
        const open = finder < 0 || !shownRows[first[number] + finder];
        wrongAll[lost] += open;
        if (number !== current) return;
        wrongHere[lost] += open;
        truths[index].forEach((path) => path.classList.toggle("lost", marked && open && kinds[lost]));
      }));
      errors.forEach(({ count }, index) => { count.textContent = `${wrongHere[index]}, ${wrongAll[index]}`; });
      paths.forEach((path, index) => {
        const kind = error[first[current] + index], color = about.classes[label[first[current] + index]].color;
        path.style.stroke = path.style.fill = !marked ? color : kind < 0 ? "var(--right)" : `var(--curve-${kind + 2})`;
        path.classList.toggle("wrong", marked && kind >= 0);
      });
    }
    classes.forEach(({ count }, index) => { count.textContent = `${here[index]}, ${all[index]}`; });
    sizes.forEach(({ count }, index) => { count.textContent = `${sizesHere[index]}, ${sizesAll[index]}`; });
    buttons.forEach(({ count }, number) => { count.textContent = counts[number]; });
    by("value").textContent = about.own && !moved ? "each its own" : Number(slider.value).toFixed(2);
    by("place").textContent = `${counts[current]} shown, picture ${current + 1} of ${buttons.length}`;
    by("sum").textContent = `${sum} shown in ${buttons.length} pictures.`;
  }

  function drawn(d, kind, color) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d); path.setAttribute("class", kind);
    if (color) { path.style.stroke = color; path.style.fill = color; }
    return path;
  }

  function show(number) {
    if (!buttons.length) return;
    buttons[current].button.removeAttribute("aria-current");
    current = Math.max(0, Math.min(buttons.length - 1, number));
    buttons[current].button.setAttribute("aria-current", "true");
    const { name, size: [width, height], picture, found, truth } = read(current);
    const image = document.createElementNS(SVG, "image"), things = document.createElementNS(SVG, "g"), true_ = document.createElementNS(SVG, "g");
    view.setAttribute("viewBox", `0 0 ${width} ${height}`);
    for (const [key, value] of [["href", picture], ["width", width], ["height", height], ["preserveAspectRatio", "none"]]) image.setAttribute(key, value);
    paths = found.map((d, index) => {
      const path = drawn(d, "thing", about.classes[label[first[current] + index]].color);
      path.dataset.row = first[current] + index;
      return path;
    });
    // The largest lie lowest, so that all can be pointed at.
    [...paths].sort((one, other) => area[other.dataset.row] - area[one.dataset.row]).forEach((path) => things.append(path));
    truths = (truth || []).map(([, d]) => [drawn(d, "under"), drawn(d, "true")]);
    truths.forEach((pair) => true_.append(...pair));
    true_.id = "truth-outlines";
    view.replaceChildren(image, things, true_);
    by("name").textContent = name;
    tip.hidden = true;
    toggles(); update();
  }

  function toggles() {
    view.classList.toggle("bare", !by("fill").checked);
    const truth = by("truth-outlines");
    if (truth) truth.classList.toggle("hidden", !by("truth").checked);
    document.body.classList.toggle("marks", by("mark").checked);
  }

  view.addEventListener("pointermove", (event) => {
    const row = event.target.dataset && event.target.dataset.row;
    tip.hidden = row === undefined;
    if (row === undefined) return;
    const wrong = error[row] < 0 ? "" : `, error: ${names[error[row]]}`;
    tip.textContent = `${about.classes[label[row]].name}, score ${score[row].toFixed(3)}, ${area[row].toLocaleString("en")} px${wrong}`;
    const frame = view.parentElement.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX - frame.left + 14, frame.width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${event.clientY - frame.top + 16}px`;
  });
  view.addEventListener("pointerleave", () => { tip.hidden = true; });
  slider.addEventListener("input", () => { moved = true; by("own").hidden = true; update(); });
  for (const id of ["fill", "truth", "mark"]) by(id).addEventListener("change", () => { toggles(); update(); });
  by("back").addEventListener("click", () => show(current - 1));
  by("on").addEventListener("click", () => show(current + 1));
  by("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: () => show(current - 1), ArrowRight: () => show(current + 1), ArrowUp: () => nudge(0.01), ArrowDown: () => nudge(-0.01),
      f: () => by("fill").click(), t: () => about.truth && by("truth").click(), e: () => about.truth && by("mark").click(), z: () => document.body.classList.toggle("large") }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!step) return;
    event.preventDefault(); step();
  });
  function nudge(by_) {
    slider.value = Number(slider.value) + by_;
    slider.dispatchEvent(new Event("input"));
  }

  slider.min = about.lowest;
  slider.value = about.start;
  for (const id of ["truth-label", "mark-label", "error-field"]) by(id).hidden = !about.truth;
  if (about.own) { by("own").hidden = false; by("own").textContent = "Each class starts from a threshold of its own; moving this sets one for all."; }
  show(0);
})();
