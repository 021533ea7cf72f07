// The curves as the kernel sends them: a snapshot of all points, then numbered batches that only append.

export interface Curve {
  xs: number[];
  ys: (number | null)[];
}

export const LOSS = 0;
export const DEV_LOSS = 1;
export const SCORE = 2;
export const LEARNING_RATE = 3;
const KINDS = 4;
const MOST_POINTS = 6000;

interface Batch {
  seq: number;
  curves: Curve[];
}

export class Curves {
  seq = -1;
  all: Curve[] = Array.from({ length: KINDS }, () => ({ xs: [], ys: [] }));

  /** Take in all points at once; an older snapshot than what is here is left out. */
  replace(bytes: DataView): boolean {
    const batch = unpack(bytes);
    if (batch === null || batch.seq < this.seq) return false;
    this.seq = batch.seq;
    this.all = batch.curves;
    return true;
  }

  /** Append a batch; false says that one is missing, or that there are so many points that a thinned snapshot is wanted. */
  append(bytes: DataView): boolean {
    const batch = unpack(bytes);
    if (batch === null) return false;
    if (batch.seq <= this.seq) return true;
    if (batch.seq !== this.seq + 1) return false;
    this.seq = batch.seq;
    batch.curves.forEach((fresh, kind) => {
      const curve = this.all[kind];
      curve?.xs.push(...fresh.xs);
      curve?.ys.push(...fresh.ys);
    });
    return this.all.every((curve) => curve.xs.length <= MOST_POINTS);
  }
}

/** Little-endian float64: the batch's number, the curves' lengths, then each curve's x and y. What is not finite becomes a gap. */
export function unpack(bytes: DataView): Batch | null {
  const size = bytes.byteLength / 8;
  if (size < 1 + KINDS) return null;
  const at = (index: number): number => bytes.getFloat64(index * 8, true);
  const lengths = Array.from({ length: KINDS }, (_, kind) => at(1 + kind));
  if (size !== 1 + KINDS + 2 * lengths.reduce((sum, length) => sum + length, 0)) return null;
  let next = 1 + KINDS;
  const curves = lengths.map((length) => {
    const xs = Array.from({ length }, (_, index) => at(next + index));
    const ys = Array.from({ length }, (_, index) => finite(at(next + length + index)));
    next += 2 * length;
    return { xs, ys };
  });
  return { seq: at(0), curves };
}

function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

/** The mean of an exponential average from the left and one from the right, so that the curve does not lag; as `series.py` does. */
export function smooth(ys: readonly (number | null)[]): (number | null)[] {
  const decay = Math.min(0.85, 1 - 6 / (ys.length + 6));
  const sums = new Float64Array(ys.length);
  const weights = new Float64Array(ys.length);
  for (const forward of [true, false]) {
    let sum = 0;
    let weight = 0;
    for (let count = 0; count < ys.length; count++) {
      const index = forward ? count : ys.length - 1 - count;
      const value = ys[index] ?? null;
      sum *= decay;
      weight *= decay;
      if (value !== null) {
        // the point itself counts once, not once a direction
        sums[index] = (sums[index] ?? 0) + sum + (forward ? value : 0);
        weights[index] = (weights[index] ?? 0) + weight + (forward ? 1 : 0);
        sum += value;
        weight += 1;
      }
    }
  }
  return ys.map((value, index) => (value === null ? null : (sums[index] ?? 0) / (weights[index] ?? 1)));
}
