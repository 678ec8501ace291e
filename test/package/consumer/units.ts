export const KIB: number = 1024;
