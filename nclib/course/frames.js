(name, page) => {
  const root = document.getElementById(name);
  if (!root || root.dataset.alive) return;
  root.dataset.alive = "yes";
  const image = root.querySelector("img"), bar = root.firstElementChild;
  const sliders = [...root.querySelectorAll("input")], button = root.querySelector("button");
  const show = () => {
    let place = 0;
    sliders.forEach((slider, i) => {
      const text = page.texts[i][slider.value];
      place = place * page.texts[i].length + Number(slider.value);
      slider.setAttribute("aria-valuetext", text);
      slider.parentElement.querySelector("output").textContent = text;
    });
    image.src = "data:image/webp;base64," + page.frames[place];
    image.alt = page.alts[place];
  };
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  const step = () => {
    const first = sliders[0];
    first.value = first.value === first.max ? 0 : Number(first.value) + 1;
    show();
    if (first.value === first.max) stop();
  };
  sliders.forEach((slider) => slider.addEventListener("input", () => { stop(); show(); }));
  button.addEventListener("click", () => {
    if (timer) return stop();
    button.textContent = "Pause";
    timer = setInterval(step, 700);
    step();
  });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  button.hidden = still || sliders.length === 0;
  bar.hidden = sliders.length === 0;
}
