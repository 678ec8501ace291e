// Medians and ranges: what a shared, noisy machine can honestly say.

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** `median (min to max), n=5` */
export function spread(values, digits = 2, unit = '') {
  const show = (value) => value.toFixed(digits);
  return `${show(median(values))}${unit} (${show(Math.min(...values))} to ${show(Math.max(...values))}), n=${values.length}`;
}

/** Ratios pair by pair: what drifts, drifts for both. */
export function ratios(over, under) {
  return over.map((value, i) => value / under[i]);
}

/** One line of the table: what, the figure, its bound and whether it holds. */
export function verdict(name, values, bound, unit = '') {
  return line(name, values, median(values) <= bound, `at most ${bound}${unit}`, unit);
}

/** The same for what shall be large. */
export function reached(name, values, bound, unit = '') {
  return line(name, values, median(values) >= bound, `at least ${bound}${unit}`, unit);
}

function line(name, values, holds, bound, unit) {
  console.log(`${holds ? 'holds ' : 'MISSED'}  ${name}: ${spread(values, 2, unit)}; ${bound}`);
  return holds;
}
