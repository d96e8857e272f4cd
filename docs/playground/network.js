"use strict";
/* The arithmetic of the playground: no page in it, so it runs in a browser and in node alike.

   An image is a Float64Array of [C, H, W] in [0, 1], one row after the other. `tests/` hold every
   function here against the Python package. */
const Net = (() => {
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const unpack = (text, Type) => Float64Array.from(new Type(bytes(text).buffer));

  /* A network as `experiments.playground` wrote it; its buffers are made once and used again. */
  function network(entry, [, height, width], classes) {
    const weights = unpack(entry.weights, Int8Array);
    const numbers = unpack(entry.numbers, Float32Array);
    let at = 0, from = 0;
    const take = (count) => numbers.subarray(at, (at += count));
    const channels = entry.layers[0][0];
    const net = { mean: take(channels), std: take(channels), layers: [], maps: [], classes };
    let size = [height, width];
    for (const [inputs, outputs, stride] of entry.layers) {
      const after = size.map((n) => Math.floor((n - 1) / stride) + 1);
      const pixels = after[0] * after[1], window = 9 * inputs;
      const steps = take(outputs), bias = take(outputs);
      const weight = weights.slice(from, (from += outputs * window));
      weight.forEach((_, i) => { weight[i] *= steps[Math.floor(i / window)]; });
      net.layers.push({
        inputs, outputs, stride, size, after, pixels, window, weight, bias,
        columns: new Float64Array(window * pixels),
        output: new Float64Array(outputs * pixels),
        slope: new Float64Array(outputs * pixels),
        pooled: new Float64Array(outputs),
      });
      size = after;
    }
    const linear = (inputs) => ({ weight: take(classes * inputs), bias: take(classes) });
    const last = net.layers.at(-1).outputs;
    net.fc = linear(last);
    net.maps = net.layers.map((layer) => linear(layer.outputs));
    net.input = new Float64Array(channels * height * width);
    net.inputSlope = new Float64Array(net.input.length);
    return net;
  }

  function affine({ weight, bias }, features) {
    return bias.map((b, k) => {
      for (let i = 0; i < features.length; i++) b += weight[k * features.length + i] * features[i];
      return b;
    });
  }

  /* Every 3 x 3 window of the input as a column; `back` adds the columns to where they came from. */
  function columns(layer, input, back) {
    const { inputs, stride, size: [height, width], after: [rows, cols], columns: all } = layer;
    let at = 0;
    for (let c = 0; c < inputs; c++) {
      for (let dy = -1; dy < 2; dy++) {
        for (let dx = -1; dx < 2; dx++) {
          for (let y = 0; y < rows; y++) {
            const row = y * stride + dy, start = (c * height + row) * width + dx;
            if (row < 0 || row >= height) {
              if (!back) all.fill(0, at, at + cols);
              at += cols;
              continue;
            }
            for (let x = 0; x < cols; x++, at++) {
              const column = x * stride + dx;
              if (column >= 0 && column < width) {
                if (back) input[start + x * stride] += all[at];
                else all[at] = input[start + x * stride];
              } else if (!back) all[at] = 0;
            }
          }
        }
      }
    }
  }

  /* Logits of an image; what each layer said stays in the network, for `places` and `slope`. */
  function forward(net, image) {
    const plane = image.length / net.mean.length;
    for (let i = 0; i < image.length; i++) {
      const c = Math.floor(i / plane);
      net.input[i] = (image[i] - net.mean[c]) / net.std[c];
    }
    let input = net.input;
    for (const layer of net.layers) {
      const { outputs, pixels, window, weight, bias, columns: all, output, pooled } = layer;
      columns(layer, input, false);
      for (let o = 0; o < outputs; o++) {
        const here = o * pixels, w = o * window;
        output.fill(bias[o], here, here + pixels);
        for (let j = 0; j < window; j += 3) { // a row of a window at once
          const a = weight[w + j], b = weight[w + j + 1], c = weight[w + j + 2];
          const p0 = j * pixels, p1 = p0 + pixels, p2 = p1 + pixels;
          for (let p = 0; p < pixels; p++) {
            output[here + p] += a * all[p0 + p] + b * all[p1 + p] + c * all[p2 + p];
          }
        }
        let sum = 0;
        for (let p = here; p < here + pixels; p++) {
          if (output[p] > 0) sum += output[p];
          else output[p] = 0;
        }
        pooled[o] = sum / pixels;
      }
      input = output;
    }
    return affine(net.fc, net.layers.at(-1).pooled);
  }

  function softmax(logits) {
    const top = Math.max(...logits), powers = logits.map((z) => Math.exp(z - top));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((p) => p / sum);
  }

  const argmax = (values) => values.indexOf(Math.max(...values));

  /* The slope of the cross-entropy of `label` at the image: forward, and then all the way back. */
  function slope(net, image, label) {
    const at = softmax(forward(net, image));
    at[label] -= 1;
    const last = net.layers.at(-1);
    for (let o = 0; o < last.outputs; o++) {
      let sum = 0;
      for (let k = 0; k < net.classes; k++) sum += net.fc.weight[k * last.outputs + o] * at[k];
      last.slope.fill(sum / last.pixels, o * last.pixels, (o + 1) * last.pixels);
    }
    for (let l = net.layers.length - 1; l >= 0; l--) {
      const { outputs, pixels, window, weight, columns: all, output, slope: given } = net.layers[l];
      all.fill(0);
      for (let o = 0; o < outputs; o++) {
        const here = o * pixels;
        for (let p = here; p < here + pixels; p++) if (output[p] <= 0) given[p] = 0;
        for (let j = 0; j < window; j++) {
          const w = weight[o * window + j], there = j * pixels;
          for (let p = 0; p < pixels; p++) all[there + p] += w * given[here + p];
        }
      }
      const before = l ? net.layers[l - 1].slope : net.inputSlope;
      before.fill(0);
      columns(net.layers[l], before, true);
    }
    const plane = image.length / net.std.length;
    return net.inputSlope.map((g, i) => g / net.std[Math.floor(i / plane)]);
  }

  /* Where each layer puts the image that was last seen: shares of the corners, [layers][K]. */
  const places = (net) => net.maps.map((map, l) => affine(map, net.layers[l].pooled));

  /* The corners of the simplex on a circle; a point of the page is a sum of them. Neighbours in
     number stand apart: classes that are alike often follow each other. */
  const LEAP = 3;
  function corner(k, classes) {
    const turn = (2 * Math.PI * ((k * LEAP) % classes)) / classes;
    return [Math.sin(turn), -Math.cos(turn)];
  }
  function onPage(shares) {
    const sum = [0, 0];
    shares.forEach((share, k) => {
      const [x, y] = corner(k, shares.length);
      sum[0] += share * x;
      sum[1] += share * y;
    });
    return sum;
  }

  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

  /* One step of FGSM or PGD: up the loss of `label`, or down where `towards` it; then back into
     the ball of radius eps around `start` and into [0, 1]. The slope is taken where the network
     looks: at `seen`, the squeezed image, if the attacker knows of the squeezer. */
  function step(net, image, start, label, { eps, alpha, towards = false, seen = image }) {
    const sign = towards ? -1 : 1, gradient = slope(net, seen, label);
    return image.map((x, i) => {
      const moved = x + sign * alpha * Math.sign(gradient[i]);
      return clamp(clamp(moved, start[i] - eps, start[i] + eps), 0, 1);
    });
  }

  /* Squeezers. */
  function even(x) { // halves go to the even neighbour, as in numpy and torch
    const low = Math.floor(x), rest = x - low;
    return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
  }

  function bits(image, count) {
    const levels = 2 ** count - 1;
    return image.map((x) => even(x * levels) / levels);
  }

  function median(image, [channels, height, width], size) {
    const before = size >> 1, result = new Float64Array(image.length);
    const mirror = (i, n) => (i < 0 ? -1 - i : i >= n ? 2 * n - 1 - i : i);
    for (let c = 0; c < channels; c++) {
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          const window = [];
          for (let i = 0; i < size * size; i++) {
            const row = mirror(y - before + Math.floor(i / size), height);
            const column = mirror(x - before + (i % size), width);
            window.push(image[(c * height + row) * width + column]);
          }
          window.sort((a, b) => a - b);
          result[(c * height + y) * width + x] = window[(size * size) >> 1];
        }
      }
    }
    return result;
  }

  /* Annex K of the JPEG standard (ITU T.81), in rows: luminance, chrominance. */
  const LUMA = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113,
    92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
  ];
  const CHROMA = [
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, ...Array(32).fill(99),
  ];
  const COSINES = Array.from({ length: 64 }, (_, at) => {
    const k = at >> 3, i = at & 7;
    return Math.cos((Math.PI * k * (2 * i + 1)) / 16) * Math.sqrt(k ? 0.25 : 0.125);
  });

  /* `block` 8 x 8: C block C^T, or C^T block C where `back`. */
  function turned(block, back) {
    const at = (k, i) => (back ? COSINES[i * 8 + k] : COSINES[k * 8 + i]);
    const half = new Float64Array(64), whole = new Float64Array(64);
    for (let k = 0; k < 8; k++) for (let j = 0; j < 8; j++) {
      for (let i = 0; i < 8; i++) half[k * 8 + j] += at(k, i) * block[i * 8 + j];
    }
    for (let k = 0; k < 8; k++) for (let j = 0; j < 8; j++) {
      for (let i = 0; i < 8; i++) whole[k * 8 + j] += half[k * 8 + i] * at(j, i);
    }
    return whole;
  }

  /* A plane of grey levels about 0 through the rounding of its cosine coefficients. */
  function quantised(plane, height, width, quality, table) {
    const scale = quality < 50 ? Math.floor(5000 / quality) : 200 - 2 * quality;
    const steps = table.map((v) => clamp(Math.floor((v * scale + 50) / 100), 1, 255));
    const result = new Float64Array(plane.length);
    for (let top = 0; top < height; top += 8) for (let left = 0; left < width; left += 8) {
      const block = new Float64Array(64).map((_, i) => {
        const y = Math.min(top + (i >> 3), height - 1), x = Math.min(left + (i & 7), width - 1);
        return plane[y * width + x];
      });
      const kept = turned(block, false).map((v, i) => even(v / steps[i]) * steps[i]);
      turned(kept, true).forEach((v, i) => {
        const y = top + (i >> 3), x = left + (i & 7);
        if (y < height && x < width) result[y * width + x] = v;
      });
    }
    return result;
  }

  function jpeg(image, [channels, height, width], quality) {
    const size = height * width, levels = image.map((x) => x * 255);
    const out = (x) => clamp(x, 0, 255) / 255;
    if (channels === 1) {
      return quantised(levels.map((x) => x - 128), height, width, quality, LUMA)
        .map((x) => out(x + 128));
    }
    const [red, green, blue] = [0, 1, 2].map((c) => levels.subarray(c * size, (c + 1) * size));
    const grey = red.map((r, i) => 0.299 * r + 0.587 * green[i] + 0.114 * blue[i]);
    const [cb, cr] = [[blue, 1.772], [red, 1.402]].map(([plane, by]) => {
      const colour = plane.map((v, i) => (v - grey[i]) / by);
      const [h, w] = [height >> 1, width >> 1]; // both are even here
      const small = new Float64Array(h * w).map((_, i) => {
        const at = 2 * Math.floor(i / w) * width + 2 * (i % w);
        return (colour[at] + colour[at + 1] + colour[at + width] + colour[at + width + 1]) / 4;
      });
      return doubled(quantised(small, h, w, quality, CHROMA), h, w);
    });
    const luma = quantised(grey.map((x) => x - 128), height, width, quality, LUMA);
    const result = new Float64Array(3 * size);
    luma.forEach((shade, i) => {
      const y = shade + 128;
      result[i] = out(y + 1.402 * cr[i]);
      result[size + i] = out(y - (0.299 * 1.402 * cr[i] + 0.114 * 1.772 * cb[i]) / 0.587);
      result[2 * size + i] = out(y + 1.772 * cb[i]);
    });
    return result;
  }

  /* A plane at twice its size, bilinear. */
  function doubled(plane, height, width) {
    const near = (i, n) => {
      const at = Math.max((i + 0.5) / 2 - 0.5, 0), low = Math.floor(at);
      return [low, Math.min(low + 1, n - 1), at - low];
    };
    return new Float64Array(4 * height * width).map((_, i) => {
      const [top, bottom, down] = near(Math.floor(i / (2 * width)), height);
      const [left, right, along] = near(i % (2 * width), width);
      const row = (y) => plane[y * width + left] * (1 - along) + plane[y * width + right] * along;
      return row(top) * (1 - down) + row(bottom) * down;
    });
  }

  /* Stickers. On a digit: pixels turned white. */
  function patched(image, [, height, width], cells, [down, right]) {
    const result = image.slice();
    for (const [y, x] of cells) {
      result[clamp(y + down, 0, height - 1) * width + clamp(x + right, 0, width - 1)] = 1;
    }
    return result;
  }

  /* On a sign: a square on the sign's own plane, in its pose, light and blur. `pose` is a row of
     homography (9), light, tint (3), slope (2) and blur, all as `nclib.data.Factors` has them. */
  const EXTENT = 1.1; // half of the side of the plane that is drawn
  function stuck(image, size, pose, { centre, width, colour }) {
    const back = inverse(pose.slice(0, 9)), fine = 2 * size;
    const across = centre.map((c) => edge(c, width, fine));
    const opacity = new Float64Array(size * size);
    for (let i = 0; i < fine * fine; i++) {
      const x = ((i % fine) + 0.5) / size - 1, y = (Math.floor(i / fine) + 0.5) / size - 1;
      const [u, v, w] = [0, 3, 6].map((r) => back[r] * x + back[r + 1] * y + back[r + 2]);
      const here = sampled(across[0], u / (EXTENT * w)) * sampled(across[1], v / (EXTENT * w));
      opacity[(Math.floor(i / fine) >> 1) * size + ((i % fine) >> 1)] += here / 4;
    }
    const [light, tint, tilt, blur] = [pose[9], pose.slice(10, 13), pose.slice(13, 15), pose[15]];
    const matrix = softener(size, blur), step = (i) => ((i + 0.5) / size) * 2 - 1;
    const cover = soft(opacity, size, matrix), result = new Float64Array(image.length);
    for (let c = 0; c < 3; c++) {
      const paint = opacity.map((o, i) => {
        const field = light * (1 + tilt[0] * step(i % size) + tilt[1] * step(Math.floor(i / size)));
        return o * colour[c] * Math.max(field, 0) * tint[c];
      });
      soft(paint, size, matrix).forEach((p, i) => {
        const at = c * size * size + i;
        result[at] = clamp(image[at] * (1 - cover[i]) + p, 0, 1);
      });
    }
    return result;
  }

  /* How much of each of `count` pixels lies within half a `width` of `centre`. */
  const edge = (centre, width, count) => Float64Array.from({ length: count }, (_, i) => {
    const away = Math.abs((((i + 0.5) / count) * 2 - 1) * EXTENT - centre);
    return clamp(((width / 2 - away) * count) / (2 * EXTENT) + 0.5, 0, 1);
  });

  function sampled(line, at) { // at in [-1, 1], linear between the pixels
    const place = clamp(((at + 1) * line.length - 1) / 2, 0, line.length - 1);
    const low = Math.floor(place), high = Math.min(low + 1, line.length - 1);
    return line[low] * (low + 1 - place) + line[high] * (place - low);
  }

  function inverse([a, b, c, d, e, f, g, h, i]) {
    const minors = [
      e * i - f * h, c * h - b * i, b * f - c * e, f * g - d * i, a * i - c * g, c * d - a * f,
      d * h - e * g, b * g - a * h, a * e - b * d,
    ];
    const whole = a * minors[0] + b * minors[3] + c * minors[6];
    return minors.map((m) => m / whole);
  }

  function softener(size, blur) {
    const deviation = Math.max((blur * size) / 2, 1e-3);
    return Array.from({ length: size }, (_, i) =>
      softmax(Array.from({ length: size }, (_, j) => -(((i - j) / deviation) ** 2) / 2)));
  }

  function soft(plane, size, matrix) {
    const half = new Float64Array(plane.length), whole = new Float64Array(plane.length);
    for (let i = 0; i < size; i++) for (let k = 0; k < size; k++) {
      if (matrix[i][k] < 1e-12) continue;
      for (let j = 0; j < size; j++) half[i * size + j] += matrix[i][k] * plane[k * size + j];
    }
    for (let j = 0; j < size; j++) for (let k = 0; k < size; k++) {
      if (matrix[j][k] < 1e-12) continue;
      for (let i = 0; i < size; i++) whole[i * size + j] += half[i * size + k] * matrix[j][k];
    }
    return whole;
  }

  /* Smoothing. A stream of normal numbers from a seed. */
  function normals(seed) {
    let state = seed >>> 0, spare = null;
    const uniform = () => { // mulberry32
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    return () => {
      if (spare !== null) {
        const kept = spare;
        spare = null;
        return kept;
      }
      const length = Math.sqrt(-2 * Math.log(1 - uniform())), turn = 2 * Math.PI * uniform();
      spare = length * Math.sin(turn);
      return length * Math.cos(turn);
    };
  }

  const noisy = (image, sigma, draw) => image.map((x) => x + sigma * draw());

  /* log of the gamma function (Lanczos). */
  function logGamma(x) {
    const terms = [
      676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
      12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
    ];
    const sum = terms.reduce((s, t, i) => s + t / (x + i), 0.99999999999980993);
    const base = x + 6.5;
    return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(base) - base + Math.log(sum);
  }

  /* The chance of `hits` or more of n at the share p; each term is a multiple of the one before. */
  function atLeast(hits, n, p) {
    const ways = logGamma(n + 1) - logGamma(hits + 1) - logGamma(n - hits + 1);
    let term = Math.exp(ways + hits * Math.log(p) + (n - hits) * Math.log1p(-p)), sum = term;
    for (let k = hits; k < n; k++) sum += term *= ((n - k) / (k + 1)) * (p / (1 - p));
    return sum;
  }

  /* Where an increasing function passes a value, between low and high. */
  function crossing(f, value, low, high) {
    for (let i = 0; i < 60; i++) {
      const middle = (low + high) / 2;
      if (f(middle) < value) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  }

  /* Clopper-Pearson: the share that n draws with so many hits leave, but for a doubt alpha. */
  const lowerBound = (hits, n, alpha) =>
    hits === 0 ? 0 : crossing((p) => atLeast(hits, n, p), alpha, 0, 1);

  /* The normal distribution function, by its power series. */
  function below(z) {
    if (Math.abs(z) > 8) return z > 0 ? 1 : 0;
    let term = z, sum = z;
    for (let k = 3; Math.abs(term) > 1e-17; k += 2) sum += term *= (z * z) / k;
    return 0.5 + (sum * Math.exp((-z * z) / 2)) / Math.sqrt(2 * Math.PI);
  }

  /* Cohen's radius of a share of votes, in the images' L2 norm; 0 up to a half. */
  const radius = (share, sigma) => (share <= 0.5 ? 0 : sigma * crossing(below, share, 0, 8));

  /* A digit from strokes, lists of [x, y], made as the set was made: 32 x 32 dots, the ink up to the
     upper and the lower edge, a wide one pressed together, and the dots of 4 x 4 blocks counted. */
  const INK = 0.3, WIDE = 24; // the share of black dots in the set; how wide a digit is at most
  function digit(strokes) {
    const points = strokes.flat(), image = new Float64Array(64);
    if (!points.length) return image;
    const ends = [0, 1].map((i) => [
      Math.min(...points.map((p) => p[i])), Math.max(...points.map((p) => p[i])),
    ]);
    let pen = 2, dots = new Uint8Array(1024);
    for (let round = 0; round < 3; round++) { // the pen's width and the scale depend on each other
      const tall = (32 - 2 * pen) / Math.max(ends[1][1] - ends[1][0], 1e-9);
      const wide = Math.min(tall, (WIDE - 2 * pen) / Math.max(ends[0][1] - ends[0][0], 1e-9));
      const [left, top] = ends.map(([low, high]) => (low + high) / 2);
      const place = ([x, y]) => [16 + (x - left) * wide, 16 + (y - top) * tall];
      const lines = strokes.flatMap((s) => s.map((p, i) => [place(s[Math.max(i - 1, 0)]), place(p)]));
      const away = Float64Array.from({ length: 1024 }, (_, i) =>
        Math.min(...lines.map((line) => apart((i % 32) + 0.5, (i >> 5) + 0.5, line))));
      pen = clamp(away.slice().sort()[Math.round(INK * 1024)], 1, 3.5);
      dots = Uint8Array.from(away, (a) => (a <= pen ? 1 : 0));
    }
    dots.forEach((dot, i) => { image[(i >> 7) * 8 + ((i & 31) >> 2)] += dot / 16; });
    return image;
  }

  function apart(x, y, [[x0, y0], [x1, y1]]) { // from a point to a line
    const [dx, dy] = [x1 - x0, y1 - y0], length = dx * dx + dy * dy;
    const t = length ? clamp(((x - x0) * dx + (y - y0) * dy) / length, 0, 1) : 0;
    return Math.hypot(x - x0 - t * dx, y - y0 - t * dy);
  }

  return {
    argmax, bits, corner, digit, forward, jpeg, lowerBound, median, network, noisy, normals,
    onPage, patched, places, radius, slope, softmax, step, stuck, unpack,
  };
})();
if (typeof module !== "undefined") module.exports = Net;
