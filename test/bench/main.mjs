// make bench: every figure as a ratio measured in one run, with its range. Not a test: exits 0 either way.
// node test/bench/main.mjs [boot] [snapshot] [tests] [dev] [exec] [blk] [ring]; ROOTPORT_BENCH_ROUNDS (5), ROOTPORT_ACCEL (auto).
const NAMES = ['boot', 'snapshot', 'tests', 'dev', 'exec', 'blk', 'ring'];
const asked = process.argv.slice(2);
const unknown = asked.filter((name) => !NAMES.includes(name));
if (unknown.length > 0) {
  console.error(`there is no bench named ${unknown.join(', ')}; they are ${NAMES.join(', ')}`);
  process.exit(2);
}
const options = { rounds: Number(process.env.ROOTPORT_BENCH_ROUNDS ?? 5), accel: process.env.ROOTPORT_ACCEL ?? 'auto' };
for (const name of asked.length > 0 ? asked : NAMES) {
  const { bench } = await import(`./${name}.bench.mjs`);
  await bench(options);
}
