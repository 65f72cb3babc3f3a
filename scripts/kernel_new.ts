/** `npm run kernel:new OP VARIANT`: a kernel of one's own in place of an op's, ready to be changed. */
import { parseArgs } from "node:util";
import { runScript, UsageError } from "./script.ts";

const HELP = `usage: npm run kernel:new -- OP VARIANT

Makes a variant of an op of rows or of logits, which begins as a copy of the op's kernel:

  kernels/rows/OP_VARIANT.wgsl        the kernel, to be changed; bindings, Params, slots and dispatch are those of OP.wgsl
  src/tensor/device/own_kernels.ts    its name; tests, benches and doctor run what is named there beside the other variants
  src/tensor/kernels.gen.ts           the text of all kernels, as npm run kernels writes it

Nothing that exists is overwritten. INSTRUCTBLIP_PLAN=OP=VARIANT runs a model with it. docs/kernels.md has the steps.

  npm run kernel:new -- layer_norm mine
`;

await runScript(async () => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { help: { type: "boolean", short: "h", default: false } },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const [op, variant, ...more] = positionals;
  if (op === undefined || variant === undefined || more.length > 0) {
    throw new UsageError("kernel:new takes an op and a name: layer_norm mine");
  }
  const { newVariant, nextSteps } = await import("./new_variant.ts");
  const made = newVariant(op, variant);
  console.log(`${made.map((file) => `wrote ${file}`).join("\n")}\n\n${nextSteps(op, variant)}`);
  return 0;
});
