// What the reader guesses stands in the table that reveals; the front page's picture can be stopped;
// a fold of the list of pages has a name; what is too wide can be scrolled by keyboard, and a wide
// figure keeps readable words on a phone; paper is light.
for (const form of document.querySelectorAll("fieldset.nclib-quiz")) {
  const note = () => {
    const choice = form.querySelector("input:checked");
    for (const place of document.querySelectorAll("[data-prediction]"))
      if (choice && form.id === `quiz-${place.dataset.prediction}`)
        place.textContent = choice.parentElement.textContent.trim();
  };
  form.addEventListener("change", note);
  note();  // a browser may remember the choice
}
for (const moving of document.querySelectorAll(".moving")) {
  const button = document.createElement("button");
  const show = (paused) => {
    moving.classList.toggle("paused", paused);
    moving.classList.toggle("playing", !paused);
    button.textContent = paused ? "Play" : "Pause";
  };
  button.type = "button";
  button.addEventListener("click", () => show(button.textContent === "Pause"));
  moving.append(button);
  show(matchMedia("(prefers-reduced-motion: reduce)").matches);
}
for (const fold of document.querySelectorAll(".bd-links summary"))
  fold.setAttribute("aria-label", `Pages below ${fold.closest("li").querySelector("a").textContent.trim()}`);
// Without a mathematical font an index stands on the line: then the style sheet lowers it.
const math = document.querySelector("msub");
if (math) {
  const probe = document.createElement("div");
  probe.innerHTML = "<math><msub><mi>x</mi><mi>x</mi></msub></math>";
  math.closest("math").parentElement.append(probe);
  const [letter, index] = [...probe.querySelectorAll("mi")].map((e) => e.getBoundingClientRect());
  const drop = (index.top + index.bottom - letter.top - letter.bottom) / 2;
  document.documentElement.classList.toggle("plain-math", drop < 0.2 * letter.height);
  probe.remove();
}
const WIDE = "div.formula, p:has(> math), .nclib-audit .wide, .nclib-frames, div.cell_output, .cell_output > .output";
const reach = () => {
  for (const box of document.querySelectorAll(WIDE))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
};
reach();
addEventListener("resize", reach);
addEventListener("load", () => {
  for (const figure of document.querySelectorAll(".cell_output img"))
    figure.classList.toggle("panels", figure.naturalWidth > 600);
  reach();
});
const { dataset } = document.documentElement;
addEventListener("beforeprint", () => {
  dataset.seen = dataset.theme;
  dataset.theme = "light";
});
addEventListener("afterprint", () => {
  dataset.theme = dataset.seen;
});
