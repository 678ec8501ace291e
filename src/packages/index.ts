export { treeCommand } from './loader.ts';
export { cached, cacheRoot, ensureEntry, entryPath, listEntries, withLock, type CacheEntry } from './cache.ts';
export { formatBytes, removeEntry, sizedEntries, type SizedEntry } from './cache-entries.ts';
export { HAND_OVER } from './mirror.ts';
export { packageFile } from './package-root.ts';
export { silentProgress, terminalProgress, type Progress } from './progress.ts';
export { cachedTree, ensureTree, layOutPackages, treeNames, treeSuite } from './tree.ts';
