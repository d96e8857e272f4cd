"use strict";
/* The page: a picture, what is done to it, and where three networks put it.

   Work is done in `frame`, and only while something moves. `Playground` is what a test may touch. */
const Playground = (() => {
  const byId = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  };
  const NAMES = { clean: "clean", poisoned: "poisoned", noisy: "under noise" };
  const STEP = 60; // milliseconds between two steps of an attack: slow enough to be seen
  const BUDGET = 14, MOST = 60; // milliseconds of a frame for noisy copies; where frames are slow
  const CHOOSE = 100; // draws that choose the class which the others count
  const WAYS = {
    ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], " ": [0, 0],
  };
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  const state = { name: "signs", index: 0, strokes: [], shift: [0, 0], pen: [0.5, 0.2], down: false };
  const sets = {};
  const { along, backdrop, dot, pixels, sized, theme, trace } = Paint;
  let set, live, running = false, since = 0;

  /* One half of the page, its networks made ready at first use. */
  function half(name) {
    if (sets[name]) return sets[name];
    const entry = DATA.sets[name], size = entry.shape.reduce((a, b) => a * b);
    const pixels = Net.unpack(entry.images, Uint8Array).map((x) => x / 255);
    const poses = entry.pose ? Net.unpack(entry.pose, Float32Array) : [];
    const networks = Object.entries(entry.networks).map(([kind, half]) => {
      const net = Net.network(half, entry.shape, entry.classes.length);
      const pairs = (text, Type, scale) => {
        const all = Net.unpack(text, Type).map((x) => x * scale), count = all.length / net.layers.length;
        return net.layers.map((_, l) => all.subarray(l * count, (l + 1) * count));
      };
      net.means = pairs(half.means, Float32Array, 1);
      net.cloud = pairs(half.cloud, Int8Array, DATA.reach / 127);
      return { kind, net, measured: half.measured };
    });
    return (sets[name] = {
      ...entry, name, networks, size,
      image: (i) => pixels.slice(i * size, (i + 1) * size),
      pose: (i) => poses.slice(i * 16, (i + 1) * 16),
    });
  }

  /* What is computed: the picture (`source`, with the sticker `world`, attacked `image`, squeezed
     `seen`) and what each network makes of it. */
  const fresh = () => ({
    changed: "source", attack: 0, last: 0,
    views: set.networks.map(() => ({ shown: null, trail: [], votes: null, crowd: [] })),
  });

  const drawn = () => set.name === "digits" && state.strokes.length > 0;
  const kind = () => document.querySelector("input[name=attack]:checked").value;
  const eps = () => Number(byId("eps").value) / 255;
  const sigma = () => Number(byId("sigma").value);

  function stick(image) {
    if (!byId("stuck").checked) return image;
    const { sticker, shape } = set, [dx, dy] = state.shift;
    if (sticker.cells) return Net.patched(image, shape, sticker.cells, [Math.round(dy), Math.round(dx)]);
    const colour = [1, 3, 5].map((i) => parseInt(byId("colour").value.slice(i, i + 2), 16) / 255);
    const centre = [sticker.centre[0] + dx, sticker.centre[1] + dy];
    return Net.stuck(image, shape[1], set.pose(state.index), { ...sticker, centre, colour });
  }

  function squeezed(image) {
    const [name, amount] = byId("squeezer").value.split(" ");
    if (name === "bits") return Net.bits(image, Number(amount));
    if (name === "median") return Net.median(image, set.shape, Number(amount));
    if (name === "jpeg") return Net.jpeg(image, set.shape, Number(amount));
    return image;
  }

  /* The class that an attack leads away from: the true one, or what the clean network reads. */
  function truth() {
    if (!drawn()) return set.labels[state.index];
    return live.read ??= Net.argmax(Net.forward(set.networks[0].net, live.source));
  }

  /* Bring everything up to date; true while there is more to do. */
  function advance(now) {
    if (live.changed === "source") {
      live.source = drawn() ? Net.digit(state.strokes) : set.image(state.index);
      live.read = undefined;
      live.changed = "world";
      since = now;
    }
    if (live.changed === "world") {
      live.world = stick(live.source);
      live.image = live.world;
      live.attack = 0;
      live.views.forEach((view) => { view.trail = []; });
      live.changed = "seen";
    }
    const steps = { none: 0, fgsm: 1, pgd: set.steps }[kind()];
    while (live.attack < steps && (still.matches || now - live.last >= STEP)) {
      attack(steps);
      live.last = now;
    }
    if (live.changed === "seen") look();
    const moving = ease(now);
    const busy = live.attack < steps;
    return (busy ? false : vote(now)) || busy || moving;
  }

  function attack(steps) {
    const { net } = set.networks[Number(byId("against").value)], goal = byId("towards").value;
    const alpha = kind() === "fgsm" ? eps() : (2.5 * eps()) / steps;
    const seen = byId("knows").checked ? squeezed(live.image) : live.image;
    const label = goal === "away" ? truth() : Number(goal);
    const how = { eps: eps(), alpha, towards: goal !== "away", seen };
    live.image = Net.step(net, live.image, live.world, label, how);
    live.attack++;
    live.changed = "seen";
  }

  function look() {
    live.seen = squeezed(live.image);
    set.networks.forEach(({ net }, i) => {
      const view = live.views[i];
      view.shares = Net.softmax(Net.forward(net, live.seen));
      view.class = Net.argmax(view.shares);
      const places = Net.places(net);
      view.near = places.map(Net.argmax);
      view.places = places.map(Net.onPage);
      view.trail.push(view.places.at(-1));
      view.votes = null;
      view.crowd = [];
    });
    live.draw = Net.normals(DATA.seed);
    live.drawn = 0;
    live.changed = "";
    live.stale = true;
  }

  /* Let the dots glide to where they belong; true while they do. */
  function ease(now) {
    let far = 0;
    for (const view of live.views) {
      view.shown ??= view.places.map((p) => p.slice());
      view.shown.forEach((shown, l) => shown.forEach((at, i) => {
        const way = view.places[l][i] - at;
        shown[i] += still.matches || Math.abs(way) < 0.002 ? way : 0.2 * way;
        far = Math.max(far, Math.abs(way));
      }));
    }
    live.fall = still.matches ? 1 : Math.min((now - since) / 1100, 1);
    return far > 0.002 || live.fall < 1;
  }

  /* Noisy copies for as long as a frame allows; true while the votes are not all in. */
  function vote(now) {
    const all = CHOOSE + DATA.draws;
    if (!byId("voting").checked || live.drawn >= all) return false;
    const slow = Math.min(0.4 * (now - (live.before ?? now)), MOST);
    const end = performance.now() + Math.max(BUDGET, slow), classes = set.classes.length;
    do {
      const copy = Net.noisy(live.seen, sigma(), live.draw);
      set.networks.forEach(({ net }, i) => {
        const view = live.views[i];
        view.votes ??= [0, 1].map(() => new Array(classes).fill(0));
        view.votes[Number(live.drawn >= CHOOSE)][Net.argmax(Net.forward(net, copy))]++;
        if (live.drawn % 8 === 0) view.crowd.push(Net.onPage(Net.places(net).at(-1)));
      });
      live.drawn++;
    } while (live.drawn < all && performance.now() < end);
    live.stale = true;
    return live.drawn < all;
  }

  /* Cohen's certificate of a network, from the votes after those that chose the class. */
  function certificate(view) {
    const [first, votes] = view.votes, chosen = Net.argmax(first);
    const n = votes.reduce((a, b) => a + b), hits = votes[chosen];
    const share = n ? Net.lowerBound(hits, n, DATA.alpha) : 0;
    return { chosen, n, hits, share, radius: Net.radius(share, sigma()), done: n === DATA.draws };
  }

  function frame(now) {
    running = false;
    const more = advance(now);
    live.before = now;
    paint();
    if (more) wake();
  }

  function wake(changed = "") {
    const order = ["source", "world", "seen"];
    const due = order.filter((step) => step === live.changed || step === changed);
    live.changed = due[0] ?? "";
    if (!running) requestAnimationFrame(frame);
    running = true;
  }

  /* Painting. */
  function retheme() {
    Paint.retheme();
    for (const canvas of document.querySelectorAll("main canvas")) canvas.behind = null;
    if (live) wake();
  }

  function paintNetwork(i) {
    const { net } = set.networks[i], view = live.views[i], card = cards[i];
    const last = net.layers.length - 1;
    const [context, at] = backdrop(card.simplex, net, last, set.classes, true);
    context.globalAlpha = 0.5;
    view.crowd.forEach((p) => dot(context, at(p), 2, theme.ink));
    context.globalAlpha = 1;
    const path = view.shown.map(at);
    trace(context, path, theme.soft, 1.2);
    path.forEach((p) => dot(context, p, 2.5, theme.soft));
    trace(context, view.trail.map(at), theme.accent, 2);
    const here = live.fall < 1 ? along(path, live.fall ** 2) : path.at(-1);
    dot(context, here, 8, theme.ground);
    dot(context, here, 6.5, theme.accent);
    [...card.minis, card.strip].forEach((mini, at) => {
      if (!mini.clientWidth) return; // the strip is for narrow screens
      const l = Math.min(at, last), [small, to] = backdrop(mini, net, l, set.classes);
      if (mini === card.strip) trace(small, view.trail.map(to), theme.accent, 1.5);
      dot(small, to(view.shown[l]), 4.6, theme.ground);
      dot(small, to(view.shown[l]), 3.6, theme.accent);
    });
  }

  let cards = [];
  function paint() {
    if (!cards[0].simplex.clientWidth) return; // not laid out yet
    paintPicture();
    set.networks.forEach((_, i) => paintNetwork(i));
    if (live.stale) tell();
  }

  function paintPicture() {
    const pad = drawn(), world = byId("world");
    if (live.world !== live.onWorld || pad) {
      if (pad) paintPad(world);
      else pixels(world, live.world, set.shape);
      live.onWorld = live.world;
    }
    if (live.seen !== live.onSeen) pixels(byId("seen"), live.seen, set.shape);
    live.onSeen = live.seen;
  }

  function paintPad(canvas) {
    const [context, width] = sized(canvas);
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, width);
    context.lineCap = "round";
    for (const stroke of state.strokes) {
      const points = stroke.map(([x, y]) => [x * width, y * width]);
      trace(context, points.length > 1 ? points : [points[0], points[0]], "#fff", width / 11);
    }
    if (state.keys) dot(context, state.pen.map((v) => v * width), 4, state.down ? theme.accent : "#888");
  }

  const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}%`;

  /* Words: verdicts, layers, certificates, and one sentence for a screen reader. */
  function tell() {
    live.stale = false;
    const known = !drawn(), said = [];
    set.networks.forEach(({ kind }, i) => {
      const view = live.views[i], card = cards[i], name = set.classes[view.class];
      const share = view.shares[view.class];
      const right = known && view.class === truth();
      card.verdict.className = `verdict ${known ? (right ? "right" : "wrong") : ""}`;
      card.what.textContent = `${name}${known ? (right ? " ✓" : " ✗") : ""}`;
      card.sure.textContent = share > 0.995 ? ">99%" : percent(share);
      const near = view.near.map((k) => set.classes[k]);
      card.captions.forEach((caption, l) => { caption.textContent = `layer ${l + 1}: ${near[l]}`; });
      card.simplex.setAttribute("aria-label",
        `Simplex of the network ${NAMES[kind]}: nearest corners, layer by layer: ${near.join(", ")}.`);
      card.certificate.replaceChildren(...promise(view));
      said.push(`${NAMES[kind]}: ${name}`);
    });
    const picture = known ? set.classes[truth()] : "your digit";
    byId("seen").setAttribute("aria-label", `What the networks see: ${picture}`);
    clearTimeout(tell.later);
    tell.later = setTimeout(announce, 500, said.join("; "));
  }

  function announce(sentence) {
    if (byId("said").textContent !== sentence) byId("said").textContent = sentence;
  }

  function promise(view) {
    if (!byId("voting").checked) return [];
    if (!view.votes || live.drawn <= CHOOSE) return [`choosing: ${live.drawn} of ${CHOOSE} draws`];
    const { chosen, n, hits, share, radius, done } = certificate(view);
    const name = set.classes[chosen], bound = share.toFixed(3);
    const count = `n = ${n}, α = ${DATA.alpha}: ${hits} say ${name}; share ≥ ${bound}. `;
    if (!done) return [count, `Radius so far ${radius.toFixed(2)}.`];
    if (!radius) return [count, "No certificate."];
    const textContent = `Certified: ${name} within L2 radius ${radius.toFixed(2)}.`;
    return [count, make("strong", { textContent })];
  }

  /* Building the page for a set. */
  function build() {
    const networks = byId("networks"), verdicts = byId("verdicts");
    networks.replaceChildren();
    verdicts.replaceChildren();
    const many = set.train.toLocaleString("en");
    const titles = {
      clean: `trained on ${many} images`,
      poisoned: `${set.poisons} of ${many} with the sticker, labelled ${set.classes[set.target]}`,
      noisy: `trained on ${many} images under noise`,
    };
    cards = set.networks.map(({ kind, net }) => {
      const card = { simplex: make("canvas", { className: "simplex" }), minis: [], captions: [] };
      card.simplex.setAttribute("role", "img");
      const layers = make("div", { className: `layers of${net.layers.length}` });
      net.layers.forEach(() => {
        const mini = make("canvas"), caption = make("figcaption");
        mini.setAttribute("aria-hidden", "true");
        card.minis.push(mini);
        card.captions.push(caption);
        layers.append(make("figure", {}, mini, caption));
      });
      card.certificate = make("p", { className: "certificate" });
      networks.append(make("article", { className: "network" },
        make("h2", { textContent: NAMES[kind] }), make("figcaption", { textContent: titles[kind] }),
        card.simplex, layers, card.certificate));
      card.what = make("span", {});
      card.sure = make("span", { className: "sure" });
      card.strip = make("canvas");
      const who = make("span", { className: "who", textContent: NAMES[kind] });
      const said = make("span", { className: "what" }, card.what, " ", card.sure);
      card.verdict = make("div", {}, who, said, card.strip);
      verdicts.append(card.verdict);
      return card;
    });
  }

  function gallery() {
    const copies = set.labels.length / set.classes.length; // in a column; one class beside the other
    byId("gallery").replaceChildren(...set.labels.map((label, i) => {
      const checked = i === state.index;
      const canvas = make("canvas"), input = make("input", { type: "radio", name: "image", checked });
      input.setAttribute("aria-label", `${set.classes[label]}, image ${(i % copies) + 1}`);
      input.addEventListener("change", () => choose(i));
      pixels(canvas, set.image(i), set.shape);
      const place = make("label", {}, input, canvas);
      place.style.gridArea = `${(i % copies) + 1} / ${Math.floor(i / copies) + 1}`;
      return place;
    }));
  }

  function choose(i) {
    state.index = i;
    Object.assign(state, { strokes: [], down: false, keys: false });
    live.views.forEach((view) => { view.shown = null; });
    hint();
    wake("source");
  }

  function hint() {
    const pad = set.name === "digits", on = byId("stuck").checked;
    byId("how").textContent = pad ? "draw here" : on ? "drag the sticker" : "test image";
    byId("world").className = pad ? "pad" : "";
    const pen = "Arrow keys move a pen, space lowers and lifts it.";
    const moves = on ? "Arrow keys move the sticker." : pad ? pen : "";
    byId("world").setAttribute("aria-label", `${pad ? "Pad to draw a digit on." : "Picture."} ${moves}`);
    byId("clear").hidden = !pad;
  }

  function enter(name) {
    set = half(name);
    state.name = name;
    state.index = set.labels.indexOf(3); // a stop sign, or a 3
    Object.assign(state, { strokes: [], shift: [0, 0], down: false, keys: false });
    byId("eps").max = name === "signs" ? 32 : 128;
    byId("eps").value = Math.round(255 * set.eps);
    byId("sigma").value = set.sigma;
    byId("paint").hidden = Boolean(set.sticker.cells);
    byId("colour").value = original();
    const option = (text, value) => make("option", { textContent: text, value });
    byId("against").replaceChildren(...set.networks.map(({ kind }, i) => option(NAMES[kind], i)));
    byId("towards").replaceChildren(option("any other", "away"), ...set.classes.map(option));
    document.querySelector(`input[name=set][value=${name}]`).checked = true;
    live = fresh();
    build();
    gallery();
    report();
    numbers();
    hint();
    wake("source");
  }

  function original() { // the colour of the training's sticker
    const hex = (c) => Math.round(255 * c).toString(16).padStart(2, "0");
    return `#${(set.sticker.colour ?? [1, 1, 1]).map(hex).join("")}`;
  }

  function numbers() {
    byId("eps-said").textContent = `${byId("eps").value}/255`;
    byId("knows").disabled = byId("squeezer").value === "none";
    byId("sigma-said").textContent = sigma().toFixed(2);
  }

  /* The table of what the export measured. */
  function report() {
    const columns = {
      accuracy: "right", fgsm: "FGSM", pgd: "PGD", sticker: "sticker", certified: "certified",
    };
    const title = (scope, textContent) => make("th", { scope, textContent });
    const heads = ["network", ...Object.values(columns)].map((text) => title("col", text));
    const rows = set.networks.map(({ kind, measured }) => make("tr", {}, title("row", NAMES[kind]),
      ...Object.keys(columns).map((key) => make("td", { textContent: percent(measured[key], 1) }))));
    const [head, body] = [make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows)];
    byId("table").replaceChildren(head, body);
    const strength = `${Math.round(255 * set.eps)}/255`, some = Math.min(500, set.test);
    byId("notes").textContent = `${set.test} test images that no training saw: right as they are; `
      + `right under an attack of ${strength} (${some} images); read as ${set.classes[set.target]} `
      + `with the sticker; certified at radius ${set.sigma} (${DATA.certified} images, `
      + `n = ${DATA.draws}, α = ${DATA.alpha}).`;
  }

  /* What a reader does. */
  function listen() {
    const on = (selector, event, act) => {
      const nodes = document.querySelectorAll(selector);
      nodes.forEach((node) => node.addEventListener(event, () => act(node)));
    };
    on("input[name=set]", "change", (input) => enter(input.value));
    on("input[name=attack]", "change", () => wake("world"));
    on("#eps, #against, #towards, #knows", "input", () => { numbers(); wake("world"); });
    on("#stuck, #colour", "input", () => { hint(); wake("world"); });
    on("#sigma, #voting", "input", () => { numbers(); wake("seen"); });
    byId("squeezer").addEventListener("input", () => {
      numbers();
      wake(byId("knows").checked ? "world" : "seen");
    });
    byId("back").addEventListener("click", () => {
      state.shift = [0, 0];
      byId("colour").value = original();
      wake("world");
    });
    byId("clear").addEventListener("click", () => choose(state.index));
    const world = byId("world");
    let held = null;
    const where = (event) => {
      const box = world.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    world.addEventListener("pointerdown", (event) => {
      world.setPointerCapture(event.pointerId);
      held = where(event);
      state.keys = false;
      if (set.name === "digits") begin(held);
      event.preventDefault();
      world.focus({ preventScroll: true });
    });
    world.addEventListener("pointermove", (event) => {
      if (!held) return;
      const [x, y] = where(event), way = Math.hypot(x - held[0], y - held[1]);
      if (set.name === "digits") {
        if (way < 0.03) return;
        state.strokes.at(-1).push([x, y]);
        wake("source");
      } else if (byId("stuck").checked) {
        const radius = set.pose(state.index)[0] / 2; // of the sign, in pictures
        move((x - held[0]) / radius, (y - held[1]) / radius);
      }
      held = [x, y];
    });
    world.addEventListener("pointerup", () => { held = null; });
    world.addEventListener("pointercancel", () => { held = null; });
    world.addEventListener("keydown", (event) => {
      const way = WAYS[event.key];
      const on = byId("stuck").checked, far = on ? (set.sticker.cells ? 1 : 0.08) : 0.05;
      if (!way || !(on || set.name === "digits")) return;
      event.preventDefault();
      const [x, y] = way.map((v) => far * v);
      if (on) move(x, y);
      else pen(x, y, event.key === " ");
    });
    still.addEventListener("change", () => wake());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", retheme);
    new ResizeObserver(() => wake()).observe(byId("networks"));
  }

  /* A stroke begins; what was in the picture before is gone. */
  function begin(place) {
    for (const input of document.querySelectorAll("#gallery input")) input.checked = false;
    state.strokes.push([place]);
    hint();
    wake("source");
  }

  /* The pen of the arrow keys; `turn` lowers or lifts it. */
  function pen(x, y, turn) {
    state.keys = true;
    state.pen = [x, y].map((v, i) => Math.min(Math.max(state.pen[i] + v, 0.05), 0.95));
    if (turn) state.down = !state.down;
    if (turn && state.down) begin(state.pen);
    else if (state.down) state.strokes.at(-1).push(state.pen);
    wake(state.down ? "source" : "");
  }

  function move(x, y) {
    const reach = set.sticker.cells ? 7 : 1.2;
    state.shift = [x, y].map((v, i) => Math.min(Math.max(state.shift[i] + v, -reach), reach));
    wake("world");
  }

  /* Settings that a link may ask for: index.html#sticker and the like. */
  function asked() {
    const name = location.hash.slice(1);
    if (name === "sticker") byId("stuck").checked = true;
    if (name === "attack") document.querySelector("input[value=pgd]").checked = true;
    if (name === "smooth") byId("voting").checked = true;
  }

  const chosen = localStorage.getItem("theme"); // the site's own switch
  if (["light", "dark"].includes(chosen)) document.documentElement.dataset.theme = chosen;
  byId("home").hidden = location.protocol === "file:"; // the course's page is on the site alone
  asked();
  enter("signs");
  retheme();
  listen();
  return {
    advance, paint,
    get set() { return set; },
    get live() { return live; },
    get running() { return running; },
  };
})();
