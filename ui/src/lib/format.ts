/** `0:07`, `12:34`, `1:02:03`; `0:00` for a start in the future. */
export function elapsed(from: number, now: number): string {
  const seconds = Math.max(0, Math.floor((now - from) / 1000));
  const two = (n: number) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** One decimal below 100, none above; `undefined` before the first token. */
export function rate(tokensPerSecond: number, language: string): string | undefined {
  if (!(tokensPerSecond > 0)) return undefined;
  const digits = tokensPerSecond < 100 ? 1 : 0;
  const form = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(language, form).format(tokensPerSecond);
}
