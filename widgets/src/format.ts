// Numbers as people read them; the same words as formats.py.

type Maybe = number | null | undefined;

export function figure(value: Maybe): string {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (value !== 0 && size < 0.001) return rate(value);
  return size < 10 ? value.toFixed(3) : size < 10_000 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
}

export function rate(value: Maybe): string {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (value === 0 || (size >= 0.01 && size < 1000)) return String(Number(value.toPrecision(3)));
  const [digits = "", exponent = "0"] = value.toExponential(1).split("e");
  return `${digits.replace(/\.0$/, "")}e${Number(exponent)}`;
}

export function count(value: Maybe): string {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) < 100_000) return Math.trunc(value).toLocaleString("en-US");
  for (const [size, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]] as const) {
    if (Math.abs(value) >= size) {
      const scaled = value / size;
      return `${scaled.toFixed(scaled < 10 ? 2 : 1)} ${unit}`;
    }
  }
  return String(value);
}

export function duration(seconds: Maybe): string {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return wholeDuration(seconds);
}

/** Without tenths: a clock that counts down should not flicker. */
export function wholeDuration(seconds: Maybe): string {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}

export function memory(bytes: Maybe): string {
  if (bytes === null || bytes === undefined || bytes <= 0) return "–";
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(0)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/** Memory in use, and what is expected to be while that is more. */
export function inUse(used: Maybe, expected: Maybe): string {
  if (expected === null || expected === undefined || expected <= (used ?? 0)) return memory(used);
  return used ? `${memory(used)} of ${memory(expected)} expected` : `${memory(expected)} expected`;
}

/** The time of one step, which may be short. */
export function fineDuration(seconds: Maybe): string {
  if (seconds === null || seconds === undefined || seconds >= 1) return duration(seconds);
  return `${(1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
}

export function share(part: Maybe): string {
  if (part === null || part === undefined) return "–";
  const whole = Math.round(100 * part);
  return whole === 0 && part > 0 ? "<1 %" : `${whole} %`;
}
