/** Numbers and times for people, in columns of constant width. */

export function count(value: number, language: string): string {
  return new Intl.NumberFormat(language).format(value);
}

/** `320 ms`, `2.9 s`, `4:05 min`. */
export function span(ms: number, language: string): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) {
    const form = { minimumFractionDigits: 0, maximumFractionDigits: ms < 10_000 ? 1 : 0 };
    return `${new Intl.NumberFormat(language, form).format(ms / 1000)} s`;
  }
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} min`;
}

/** `now`, `12 s ago`, `5 min ago`, `3 h ago`, `2 d ago`, in the reader's language. */
export function ago(from: number, now: number, language: string): string {
  const seconds = Math.max(0, Math.round((now - from) / 1000));
  const form = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
  if (seconds < 60) return form.format(-seconds, "second");
  if (seconds < 3600) return form.format(-Math.floor(seconds / 60), "minute");
  if (seconds < 86_400) return form.format(-Math.floor(seconds / 3600), "hour");
  return form.format(-Math.floor(seconds / 86_400), "day");
}

/** A day and a time, for tooltips and distant times. */
export function moment(at: number, language: string): string {
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(at);
}

/** The end of an id: it begins with the time, so only its end tells jobs of the same minute apart. */
export const short = (id: string) => id.slice(-8);

export function bytes(value: number, language: string): string {
  const form = (n: number, digits: number) =>
    new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(n);
  if (value < 1024) return `${form(value, 0)} B`;
  if (value < 1024 * 1024) return `${form(value / 1024, 0)} KiB`;
  return `${form(value / 1024 / 1024, 1)} MiB`;
}
