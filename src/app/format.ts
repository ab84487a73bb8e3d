/** Quantities as the page writes them. Pure. */

/**
 * A span of time: `0.4 s` below ten seconds, whole seconds below a minute, then `3 min 05 s` and `1 h 04 min`.
 *
 * @param milliseconds 0 or more.
 */
export function formatDuration(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  return formatSeconds(Math.round(seconds));
}

/** Like {@link formatDuration} in whole seconds from the first on, for clocks that tick. */
export function formatClock(milliseconds: number): string {
  return formatSeconds(Math.floor(milliseconds / 1000));
}

function formatSeconds(seconds: number): string {
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${twoDigits(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${twoDigits(minutes % 60)} min`;
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0');
}

const BYTE_UNITS = ['bytes', 'kB', 'MB', 'GB', 'TB'] as const;

/** A number of bytes with three significant digits in decimal units (1 kB = 1000 bytes), as download lists count. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // 999.5 would round to 1000 and is 1 of the next unit.
  while (value >= 999.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${BYTE_UNITS[unit]}`;
}

/** Pixels of a picture, `832 × 480`. */
export function formatPixels([width, height]: readonly [number, number]): string {
  return `${width} × ${height}`;
}

/** Length of a clip that plays `frames` at `framesPerSecond`, in seconds. */
export function formatLength(frames: number, framesPerSecond: number): string {
  const seconds = frames / framesPerSecond;
  return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}
