"use strict";
/* Ink on a canvas: pictures, the simplex with what does not move, lines and dots. */
const Paint = (() => {
  const HUES = [
    "#d1495b", "#d9741a", "#a8821a", "#5f9a45", "#1f9684",
    "#1d84b5", "#5b6bd0", "#8e5bb5", "#c2549d", "#7b8087",
  ];
  const theme = {}; // the colours of the style sheet, light or dark

  function retheme() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["ink", "soft", "line", "ground", "accent"]) {
      theme[name] = style.getPropertyValue(`--${name}`).trim();
    }
  }

  /* A canvas as fine as the screen; its context draws in CSS pixels. */
  function sized(canvas) {
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth;
    if (canvas.width !== Math.round(width * ratio)) {
      canvas.width = canvas.height = Math.round(width * ratio);
      canvas.behind = null;
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return [context, width];
  }

  function pixels(canvas, image, [channels, height, width]) {
    canvas.width = width;
    canvas.height = height;
    const data = new ImageData(width, height), size = width * height;
    for (let i = 0; i < size; i++) {
      for (let c = 0; c < 3; c++) {
        data.data[4 * i + c] = 255 * image[(channels === 3 ? c : 0) * size + i];
      }
      data.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(data, 0, 0);
  }

  const dot = (context, [x, y], radius, colour) => {
    context.fillStyle = colour;
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.fill();
  };

  /* From the map of the simplex to a canvas of this width. */
  const onto = (width, labelled) => {
    const reach = width * (labelled ? 0.33 : 0.4);
    return ([x, y]) => [width / 2 + reach * x, width / 2 + reach * y];
  };

  /* What does not move: the edges, the training images, the class means, the names. */
  function backdrop(canvas, net, layer, classes, labelled = false) {
    const [context, width] = sized(canvas);
    if (canvas.behind) {
      context.clearRect(0, 0, width, width);
      context.drawImage(canvas.behind, 0, 0, width, width);
      return [context, onto(width, labelled)];
    }
    context.clearRect(0, 0, width, width);
    const at = onto(width, labelled), count = net.classes;
    const ends = classes.map((_, k) => at(Net.corner(k, count)));
    context.strokeStyle = theme.line;
    context.lineWidth = labelled ? 0.6 : 0.3;
    context.beginPath();
    ends.forEach(([x, y], i) => ends.slice(i + 1).forEach(([u, v]) => {
      context.moveTo(x, y);
      context.lineTo(u, v);
    }));
    context.stroke();
    const places = (flat) =>
      Array.from({ length: flat.length / 2 }, (_, i) => at([flat[2 * i], flat[2 * i + 1]]));
    const cloud = places(net.cloud[layer]), each = cloud.length / count; // images of a class
    context.globalAlpha = 0.35;
    cloud.forEach((p, i) => dot(context, p, labelled ? 2 : 1.1, HUES[Math.floor(i / each)]));
    context.globalAlpha = 1;
    places(net.means[layer]).forEach((p, k) => {
      dot(context, p, labelled ? 5 : 2.6, theme.ground);
      dot(context, p, labelled ? 4 : 2, HUES[k]);
    });
    if (labelled) name(context, classes, at, width);
    canvas.behind = document.createElement("canvas");
    canvas.behind.width = canvas.behind.height = canvas.width;
    canvas.behind.getContext("2d").drawImage(canvas, 0, 0);
    return [context, at];
  }

  /* The names of the classes around their corners; two words in two lines. */
  function name(context, classes, at, width) {
    context.fillStyle = theme.ink;
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "center";
    classes.forEach((words, k) => {
      const [x, y] = at(Net.corner(k, classes.length).map((v) => 1.32 * v));
      const lines = words.split(" ");
      const half = Math.max(...lines.map((line) => context.measureText(line).width)) / 2;
      const middle = Math.min(Math.max(x, half + 1), width - half - 1);
      const first = y - (13 * (lines.length - 1)) / 2;
      lines.forEach((line, i) => context.fillText(line, middle, first + 13 * i));
    });
  }

  function trace(context, points, colour, width) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.lineJoin = "round";
    context.beginPath();
    points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
  }

  /* The point so far along a chain of points. */
  function along(points, share) {
    const way = share * (points.length - 1), low = Math.min(Math.floor(way), points.length - 2);
    return points[low].map((v, i) => v + (points[low + 1][i] - v) * (way - low));
  }

  return { along, backdrop, dot, pixels, retheme, sized, theme, trace };
})();
