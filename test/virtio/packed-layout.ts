// Imported before a test file, has that file's mockDriver() make packed rings: a device's tests are run again
// on the other layout by a file of two imports. Jest loads modules anew for each test file.
import { fileLayout } from './layouts.ts';

fileLayout.value = 'packed';
