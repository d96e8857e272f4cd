// What the reader guesses stands in the table that reveals; the front page's picture can be stopped;
// a fold of the list of pages has a name, and what is too wide can be scrolled by keyboard;
// paper is light.
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
const reach = () => {
  for (const box of document.querySelectorAll("div.formula, p:has(> math), .nclib-audit .wide"))
    box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1;
};
reach();
addEventListener("resize", reach);
const { dataset } = document.documentElement;
addEventListener("beforeprint", () => {
  dataset.seen = dataset.theme;
  dataset.theme = "light";
});
addEventListener("afterprint", () => {
  dataset.theme = dataset.seen;
});
