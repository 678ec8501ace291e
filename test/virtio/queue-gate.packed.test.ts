// The tests of queue-gate.test.ts again, on packed rings.
import './packed-layout.ts';
import './queue-gate.test.ts';
