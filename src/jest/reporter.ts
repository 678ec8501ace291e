export default class RootportReporter {}
