/** Whether tests that take a sample of many cases take all of them: `npm run test:all`. */
export const ALL = process.env.INSTRUCTBLIP_TEST_ALL === "1";
