/** Whether tests with many cases run all of them instead of a sample: `npm run test:all`. */
export const ALL = process.env.INSTRUCTBLIP_TEST_ALL === "1";
