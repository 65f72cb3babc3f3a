/** Questions of a data set a second, and how busy the device was: `npm run bench:dataset`. */
import { type DataRow, IMAGE_COLUMNS, RUN_COLUMNS, settingName, summaryOf } from "../../bench/dataset/results.ts";
import { drawBars } from "./bars.ts";
import { type Figure, tableOf } from "./figure.ts";

/** @param rows of one machine */
export function datasetFigure(rows: readonly DataRow[]): Figure {
  const { about, settings, images } = summaryOf(rows);
  const bars = settings.map((line, at) => ({
    ...{ label: settingName(line), value: line.per_second, text: line.per_second.toPrecision(3), at },
  }));
  return {
    title: "Questions of a data set",
    summary: [
      `${about.join("; ")}.`,
      ...settings.map(
        (line) =>
          `${settingName(line)}: ${line.per_second.toPrecision(3)} questions a second, the device busy ${(100 * line.busy).toFixed(1)} % of the time.`,
      ),
    ],
    ...(bars.length && { draw: (width: number) => drawBars(bars, "questions a second", width) }),
    tables: [
      ...(settings.length ? [tableOf("settings", settings, RUN_COLUMNS)] : []),
      ...(images.length ? [tableOf("decoding and resizing alone", images, IMAGE_COLUMNS)] : []),
    ],
  };
}
