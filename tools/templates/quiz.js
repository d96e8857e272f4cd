// A guess is compared with what came out in the lesson; it is stored nowhere, and graded by nobody.
for (const form of document.querySelectorAll("fieldset.nclib-quiz")) {
  const told = JSON.parse(form.dataset.told);
  const button = form.querySelector("button"), verdict = form.querySelector(".verdict");
  const typed = form.querySelector("input[type=text]");
  const covers = (answer, guess) => {
    if (typeof guess === "string") return answer.text === guess;
    const low = answer.low ?? -Infinity, high = answer.high ?? Infinity;
    return answer.ends ? low <= guess && guess <= high : low < guess && guess < high;
  };
  const said = () => {
    const chosen = form.querySelector("input:checked");
    if (chosen) return told.kind === "number" ? Number(chosen.value) : chosen.value;
    if (!typed) return null;
    const text = typed.value.trim().replace(/^(-?\d+),(\d+)$/, "$1.$2"), guess = Number(text);
    return text === "" || Number.isNaN(guess) ? null : guess;
  };
  const answer = () => {
    const guess = said();
    if (guess === null) {
      verdict.textContent = typed ? "A number is asked for." : "Choose one first.";
      return;
    }
    const usual = told.usual.find((wrong) => covers(wrong, guess));
    const right = covers(told.right, guess) && (told.right.ends || !usual);
    if (right) verdict.textContent = `Right: the lesson says ${told.right.text}.`;
    else verdict.textContent = usual ? `Not so: ${usual.why}` : `The lesson says ${told.right.text}.`;
    form.querySelector("details").open = true;
  };
  button.hidden = false;
  button.addEventListener("click", answer);
  if (typed) typed.addEventListener("keydown", (event) => { if (event.key === "Enter") answer(); });
}
